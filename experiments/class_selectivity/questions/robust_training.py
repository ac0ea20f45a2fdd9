"""Q6: the way back: does robust training move selectivity?"""

from __future__ import annotations

from typing import Any

from experiments.lab.figures import Figures, mean_of, minus, number
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import over_seeds

from ..recipes import MIXED, PGD, STANDARD, Recipe
from ..selectivity_lab import SelectivityLab
from .common import layers_selectivity, mean_selectivity, of_all_alphas
from .common_corruptions import average


def methods(lab: SelectivityLab) -> tuple[str, str, str]:
    """Standard training, one against attacks, one against corruptions."""
    return STANDARD, lab.preset.robust, MIXED


def recipes(lab: SelectivityLab) -> list[Recipe]:
    """Those of all alphas, and robust ones."""
    robust = [recipe for method in methods(lab)[1:] for recipe in lab.of_method(method)]
    return [*of_all_alphas(lab), *robust]


def of_network(lab: SelectivityLab, recipe: Recipe) -> Figures:
    """What is held against the training method."""
    return {
        "selectivity": number(mean_selectivity(lab, recipe)),
        "clean accuracy": lab.clean(recipe),
        **average(lab, recipe),
        "attacked accuracy": lab.attacked(recipe, PGD, max(lab.preset.radii)),
    }


def run(lab: SelectivityLab, report: Report) -> dict[str, Any]:
    """Selectivity of networks made robust, whole and by layer."""
    standard, attacked, mixed = methods(lab)
    found = {
        method: [of_network(lab, recipe) for recipe in lab.of_method(method)]
        for method in (standard, attacked, mixed)
    }
    means = {method: mean_of(networks) for method, networks in found.items()}
    report.table("methods", [{"training": method, **own} for method, own in means.items()])
    curves = {}
    for method in found:
        networks = [layers_selectivity(lab, recipe) for recipe in lab.of_method(method)]
        curves[method] = [over_seeds([own[key] for own in networks]) for key in networks[0]]
    report.lines(
        "layers", curves, xlabel="ReLU", ylabel="mean class selectivity",
        title="Selectivity of standard and robust networks",
    )  # fmt: skip
    return {
        "seeds": len(lab.preset.seeds),
        "methods": {"standard": means[standard], "attacked": means[attacked],
                    "mixed": means[mixed]},
        "attacked minus standard": minus(found[attacked], found[standard]),
        "mixed minus standard": minus(found[mixed], found[standard]),
    }  # fmt: skip
