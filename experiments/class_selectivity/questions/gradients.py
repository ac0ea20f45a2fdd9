"""Q5: are the gradients of selective networks' units more variable?"""

from __future__ import annotations

from typing import Any

from experiments.lab.figures import Figures, number
from experiments.lab.report import Report
from repsim_fast.analysis.gradients import input_unit_gradients, variability

from ..recipes import Recipe
from ..selectivity_lab import SelectivityLab
from .common import findings, over_alphas, write

ACROSS = ("across samples", "across units")


def of_network(lab: SelectivityLab, recipe: Recipe) -> Figures:
    """Coefficients of variation, means over layers."""
    preset = lab.preset

    def measure() -> list[list[float]]:
        x = lab.images()[0][: preset.gradient_images].to(preset.device)
        found = input_unit_gradients(lab.model_of(recipe), x, units=preset.gradient_units)
        return [list(variability(own)) for own in found.values()]

    settings = [preset.test_images, preset.gradient_images, preset.gradient_units]
    layers = lab.networks.measured(recipe, "gradients", settings, measure)
    known = [[v for v in values if v is not None] for values in zip(*layers, strict=True)]
    return {
        name: number(sum(own) / len(own) if own else float("nan"))
        for name, own in zip(ACROSS, known, strict=True)
    }


def run(lab: SelectivityLab, report: Report) -> dict[str, Any]:
    """Coefficients of variation, means over layers, over alpha."""
    found = over_alphas(lab, lambda recipe: of_network(lab, recipe))
    write(
        report, "gradients", found, ACROSS, "Gradients of units in the input",
        ylabel="coefficient of variation",
    )  # fmt: skip
    return findings(lab, found)
