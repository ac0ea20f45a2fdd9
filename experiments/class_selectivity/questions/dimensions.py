"""Q4: how many dimensions have layers, and their change under corruptions and attacks?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from experiments.lab.figures import Figures, minus, number
from experiments.lab.report import Report
from repsim_fast.analysis.dimensionality import Dimensions, dimensionality
from repsim_fast.analysis.estimates import over_seeds

from ..recipes import Recipe
from ..selectivity_lab import SEVERITY, SelectivityLab
from .common import findings, over_alphas, write

CLEAN, CORRUPTED, ADVERSARIAL = "clean", "change, corrupted", "change, adversarial"
GAIN = "adversarial minus corrupted"
# Of a layer: components are a share of its units.
INDICES = ("components 90", "components 95", "participation ratio", "intrinsic")
GROUPS = 10

Layers = dict[str, dict[str, dict[str, float]]]
"""Layer -> clean or change -> index."""


def measured(lab: SelectivityLab, recipe: Recipe) -> Layers:
    """All indices of all layers."""
    preset = lab.preset

    def measure() -> Layers:
        x, _ = lab.images()
        others = {
            CORRUPTED: lab.blended(),
            ADVERSARIAL: lab.adversarial(recipe),
        }
        model, found = lab.model_of(recipe), Layers()
        for name, images in others.items():
            # Positions stand in for labels: other images are looked up by them.
            layers = dimensionality(
                model, (x, torch.arange(len(x))), perturbation=_Look(images), groups=GROUPS,
                neighbours=preset.neighbours, batch_size=preset.compare_batch,
            )  # fmt: skip
            for layer, own in layers.items():
                assert own.change is not None
                found.setdefault(layer, {CLEAN: _figures(own.clean)})[name] = _figures(own.change)
        return found

    settings = [preset.test_images, preset.radii, preset.neighbours, SEVERITY, GROUPS,
                preset.corruptions]  # fmt: skip
    found: Layers = lab.networks.measured(recipe, "dimensions", settings, measure)
    return found


class _Look:
    """Images that were made before, by position."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __call__(self, model: nn.Module, x: Tensor, positions: Tensor) -> Tensor:
        return self.images[positions.cpu()].to(x.device)


def _figures(own: Dimensions) -> dict[str, float]:
    values = (own.components_90.value / own.features, own.components_95.value / own.features,
              own.participation_ratio.value, own.intrinsic.value)  # fmt: skip
    return dict(zip(INDICES, values, strict=True))


def early(layers: Layers, kind: str, index: str) -> float:
    """Mean of an index over the first third of the layers."""
    some = list(layers.values())[: max(1, len(layers) // 3)]
    values = [own[kind][index] for own in some]
    return sum(values) / len(values) if None not in values else float("nan")


def _of_network(lab: SelectivityLab, recipe: Recipe) -> Figures:
    layers = measured(lab, recipe)
    found = {
        f"early {kind}: {index}": early(layers, kind, index)
        for kind in (CLEAN, CORRUPTED, ADVERSARIAL)
        for index in INDICES
    }
    for index in INDICES:
        found[f"early {GAIN}: {index}"] = (
            found[f"early {ADVERSARIAL}: {index}"] - found[f"early {CORRUPTED}: {index}"]
        )
    return {name: number(value) for name, value in found.items()}


def run(lab: SelectivityLab, report: Report) -> dict[str, Any]:
    """Early layers over alpha; all layers at low, 0 and high."""
    found = over_alphas(lab, lambda recipe: _of_network(lab, recipe))
    shown = [f"early {kind}: components 95" for kind in (CLEAN, CORRUPTED, ADVERSARIAL)]
    write(
        report, "dimensions", found, shown, "Dimensionality of early layers against selectivity",
        ylabel="components for 95 % of variance, share of units",
    )  # fmt: skip
    preset, rows, curves = lab.preset, [], {}
    for alpha in dict.fromkeys((preset.low, 0.0, preset.high)):
        networks = [measured(lab, recipe) for recipe in lab.of_alpha(alpha)]
        for kind in (CLEAN, CORRUPTED, ADVERSARIAL):
            by_layer = {
                layer: {
                    index: over_seeds([_known(own[layer][kind][index]) for own in networks])
                    for index in INDICES
                }
                for layer in networks[0]
            }
            curves[f"alpha {alpha:g}, {kind}"] = [own["components 95"] for own in by_layer.values()]
            rows += [{"alpha": f"{alpha:g}", "of": kind, "layer": layer, **own}
                     for layer, own in by_layer.items()]  # fmt: skip
    report.table("layers", rows)
    report.lines(
        "layers", curves, xlabel="ReLU", ylabel="components for 95 % of variance, share of units",
        title="Dimensionality by layer",
    )  # fmt: skip
    zero = found["0"]
    return {
        **findings(lab, found),
        "low minus high": minus(found[f"{preset.low:g}"], found[f"{preset.high:g}"]),
        "at 0": {name: over_seeds([own[name].value for own in zero]) for name in zero[0]},
    }


def _known(value: float | None) -> float:
    return float("nan") if value is None else value
