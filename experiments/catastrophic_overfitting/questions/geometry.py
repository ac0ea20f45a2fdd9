"""Q4: alignment and curvature of the loss along trainings that collapse and that do not."""

from __future__ import annotations

from typing import Any

from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate, mean_over_seeds

from ..overfitting_lab import UNKNOWN, OverfittingLab
from ..recipes import Recipe
from .along import of_seeds, scores_along, where

FIGURES = ("gradient_cosine", "perturbation_cosine", "input_curvature", "selectivity")


def run(lab: OverfittingLab, report: Report) -> dict[str, Any]:
    """Of FGSM with the feature and without, and of PGD with it."""
    kinds = {
        "fgsm": lab.recipe(),
        "fgsm, no feature": lab.recipe(beta=0.0),
        "pgd": lab.recipe("pgd"),
    }
    along = {name: geometry_along(lab, recipe) for name, recipe in kinds.items()}
    report.table(
        "along",
        [
            {"training": name, "epoch": f"{epoch}", **one}
            for name, own in along.items()
            for epoch, one in own.items()
        ],
    )
    for figure in FIGURES:
        report.lines(
            figure,
            {
                name: [Estimate(one[figure], UNKNOWN) for one in own.values()]
                for name, own in along.items()
            },
            x=list(lab.kept),
            xlabel="epoch",
            ylabel=figure.replace("_", " "),
            title="Along the training",
        )
    sides = []
    for _, recipe in of_seeds(lab):
        if (found := where(scores_along(lab, recipe), len(lab.carriers))) is not None:
            sides.append({s: lab.geometry(recipe, getattr(found, s)) for s in ("before", "after")})
    findings: dict[str, Any] = {"networks that collapse": len(sides)}
    for side in ("before", "after") if sides else ():
        findings[side] = {
            name: mean_over_seeds([Estimate(one[side][name], UNKNOWN) for one in sides])
            for name in FIGURES
        }
    last = along["pgd"][lab.kept[-1]]
    findings["pgd, last"] = {name: Estimate(last[name], UNKNOWN) for name in FIGURES}
    return findings


def geometry_along(lab: OverfittingLab, recipe: Recipe) -> dict[int, dict[str, float]]:
    """Figures by the number of epochs done."""
    return {epoch: lab.geometry(recipe, epoch) for epoch in lab.kept}


def recipes(lab: OverfittingLab) -> list[Recipe]:
    """FGSM of all seeds, and what it is compared with."""
    return [*(r for _, r in of_seeds(lab)), lab.recipe(beta=0.0), lab.recipe("pgd")]
