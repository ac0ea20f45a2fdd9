"""What several questions measure of a network, and how numbers go with alpha."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from experiments.lab.figures import Figures, mean_of, minus, number
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import ratio
from repsim_fast.analysis.selectivity import selectivity

from ..recipes import Recipe
from ..selectivity_lab import SelectivityLab

ZERO = "0"


def of_all_alphas(lab: SelectivityLab) -> list[Recipe]:
    """The networks of all alphas and seeds; those that claims need begin."""
    first = [lab.preset.low, 0.0, lab.preset.high]
    alphas = [*first, *(a for a in lab.preset.alphas if a not in first)]
    return [recipe for alpha in alphas for recipe in lab.of_alpha(alpha)]


def layers_selectivity(lab: SelectivityLab, recipe: Recipe) -> dict[str, float]:
    """Mean selectivity of the units of each layer, on the test images."""

    def measure() -> dict[str, float]:
        batch = lab.preset.compare_batch
        return selectivity(lab.model_of(recipe), lab.images(), batch_size=batch).layers

    found: dict[str, float] = lab.networks.measured(
        recipe, "selectivity", lab.preset.test_images, measure
    )
    return found


def mean_selectivity(lab: SelectivityLab, recipe: Recipe) -> float:
    """Mean over layers of the mean over their units."""
    layers = layers_selectivity(lab, recipe)
    return sum(layers.values()) / len(layers)


def of_network(lab: SelectivityLab, recipe: Recipe) -> Figures:
    """What every question has of a network."""
    return {
        "selectivity": number(mean_selectivity(lab, recipe)),
        "clean accuracy": lab.clean(recipe),
    }


def over_alphas(
    lab: SelectivityLab, measure: Callable[[Recipe], Figures]
) -> dict[str, list[Figures]]:
    """Figures of all networks, by alpha, one a seed; selectivity and accuracy are among them."""
    return {
        f"{alpha:g}": [
            {**of_network(lab, recipe), **measure(recipe)} for recipe in lab.of_alpha(alpha)
        ]
        for alpha in lab.preset.alphas
    }


def findings(lab: SelectivityLab, found: Mapping[str, Sequence[Figures]]) -> dict[str, Any]:
    """What claims are judged by: means by alpha, and differences between low, 0 and high."""
    low, high = (f"{alpha:g}" for alpha in (lab.preset.low, lab.preset.high))
    means = {alpha: mean_of(networks) for alpha, networks in found.items()}
    return {
        "seeds": len(lab.preset.seeds),
        "alphas": means,
        "low": low,
        "high": high,
        "low / 0": {"selectivity": ratio(means[low]["selectivity"], means[ZERO]["selectivity"])},
        "low minus 0": minus(found[low], found[ZERO]),
        "high minus 0": minus(found[high], found[ZERO]),
        "high minus low": minus(found[high], found[low]),
    }


def write(
    report: Report,
    name: str,
    found: Mapping[str, Sequence[Figures]],
    shown: Sequence[str],
    title: str,
    *,
    ylabel: str,
) -> None:
    """A table of means over seeds by alpha, one of all networks, and a picture of some figures."""
    means = {alpha: mean_of(networks) for alpha, networks in found.items()}
    report.table(name, [{"alpha": alpha, **own} for alpha, own in means.items()])
    report.table(
        f"{name}_networks",
        [
            {"alpha": alpha, "network": seed, **own}
            for alpha, networks in found.items()
            for seed, own in enumerate(networks)
        ],
    )
    report.lines(
        name,
        {figure: [own[figure] for own in means.values()] for figure in shown},
        x=[own["selectivity"].value for own in means.values()],
        xlabel="mean class selectivity",
        ylabel=ylabel,
        title=title,
    )
