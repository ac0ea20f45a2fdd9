"""Q3: what does the network use before the collapse, and after?"""

from __future__ import annotations

from typing import Any

from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate, mean_over_seeds

from ..overfitting_lab import OverfittingLab
from ..recipes import Recipe
from .along import of_seeds, scores_along, where

SETS = ("clean", "robust", "original", "image", "feature", "alone")


def run(lab: OverfittingLab, report: Report) -> dict[str, Any]:
    """Accuracies along the training on images with, without, or with another class's feature."""
    rows: list[dict[str, Any]] = []
    sides: list[dict[str, dict[str, Estimate]]] = []
    first: dict[int, dict[str, Estimate]] = {}
    for seed, recipe in of_seeds(lab):
        along = scores_along(lab, recipe)
        first = first or along
        rows += [{"seed": f"{seed}", "epoch": f"{e}", **one} for e, one in along.items()]
        if (found := where(along, len(lab.carriers))) is not None:
            sides.append({"before": along[found.before], "after": along[found.after]})
    report.table("along", rows)
    report.lines(
        "along",
        {name: [one[name] for one in first.values()] for name in SETS},
        x=list(first),
        xlabel="epoch",
        ylabel="share of the images",
        title="What the network uses",
    )
    return {
        "networks that collapse": len(sides),
        "networks": len(rows) // len(lab.kept),
        **{
            side: {name: mean_over_seeds([one[side][name] for one in sides]) for name in SETS}
            for side in ("before", "after")
            if sides
        },
    }


def recipes(lab: OverfittingLab) -> list[Recipe]:
    """Training against one step at ``focus``."""
    return [recipe for _, recipe in of_seeds(lab)]
