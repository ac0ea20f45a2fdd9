"""Q3: are networks of high selectivity more robust to attacks?"""

from __future__ import annotations

import math
from typing import Any

from experiments.lab.figures import Figures, number
from experiments.lab.report import Report
from repsim_fast.analysis.gradients import jacobian_norms

from ..recipes import PGD, Recipe
from ..selectivity_lab import FGSM, SelectivityLab
from .common import findings, over_alphas, write

JACOBIAN = "log norm of Jacobian"


def attacked(lab: SelectivityLab, recipe: Recipe) -> Figures:
    """Robust accuracies at each radius, their means over radii, log norm of the Jacobian."""
    radii = lab.preset.radii
    at = {
        f"{name} x{radius:g}": lab.attacked(recipe, name, radius)
        for name in (FGSM, PGD)
        for radius in radii
    }
    means = {
        name: number(sum(at[f"{name} x{radius:g}"].value for radius in radii) / len(radii))
        for name in (FGSM, PGD)
    }
    return {**at, **means, JACOBIAN: number(_jacobian(lab, recipe))}


def _jacobian(lab: SelectivityLab, recipe: Recipe) -> float:
    """Mean over images of the log norm of the Jacobian of the logits."""
    preset = lab.preset

    def measure() -> float:
        x = lab.images()[0][: preset.gradient_images].to(preset.device)
        norms = jacobian_norms(lab.model_of(recipe), x).double().clamp(min=1e-12)
        return float(norms.log().mean())

    settings = [preset.test_images, preset.gradient_images]
    found = lab.networks.measured(recipe, "jacobian", settings, measure)
    return math.nan if found is None else float(found)


def run(lab: SelectivityLab, report: Report) -> dict[str, Any]:
    """Robust accuracy over radii and alpha."""
    found = over_alphas(lab, lambda recipe: attacked(lab, recipe))
    shown = [f"{name} x{radius:g}" for name in (FGSM, PGD) for radius in lab.preset.radii]
    write(
        report, "attacks", found, shown, "Accuracy under attack against selectivity",
        ylabel="robust accuracy",
    )  # fmt: skip
    return findings(lab, found)
