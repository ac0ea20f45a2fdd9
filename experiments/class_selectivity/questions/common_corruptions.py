"""Q2: are networks of low selectivity more robust to corruptions?"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.lab.figures import Figures, number
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate, over_seeds, ratio

from ..recipes import Recipe
from ..selectivity_lab import SelectivityLab
from .common import findings, over_alphas, write


def average(lab: SelectivityLab, recipe: Recipe) -> Figures:
    """Accuracy averaged over all kinds and severities, raw and over the clean accuracy."""
    raw = number(float(np.mean(list(lab.under_corruption(recipe).values()))))
    relative = ratio(raw, Estimate(lab.clean(recipe).value, float("nan")))
    return {"corrupted accuracy": raw, "over clean": number(relative.value)}


def run(lab: SelectivityLab, report: Report) -> dict[str, Any]:
    """Average accuracy over alpha, and accuracy by kind."""
    found = over_alphas(lab, lambda recipe: average(lab, recipe))
    write(
        report, "corruptions", found, ["clean accuracy", "corrupted accuracy", "over clean"],
        "Accuracy under corruptions against selectivity", ylabel="accuracy",
    )  # fmt: skip
    kinds = {
        f"alpha {alpha:g}": [lab.under_corruption(recipe) for recipe in lab.of_alpha(alpha)]
        for alpha in lab.preset.alphas
    }
    report.table(
        "kinds",
        [
            {
                "corruption": kind,
                **{
                    alpha: over_seeds([float(np.mean(own[kind])) for own in networks])
                    for alpha, networks in kinds.items()
                },
            }
            for kind in lab.corruption_kinds()
        ],
    )
    return {**findings(lab, found), "source": lab.corruption_source}
