"""Q1: what does selectivity have to do with accuracy?"""

from __future__ import annotations

from typing import Any

from experiments.lab.report import Report
from repsim_fast.analysis.estimates import over_seeds

from ..selectivity_lab import SelectivityLab
from .common import findings, layers_selectivity, over_alphas, write


def run(lab: SelectivityLab, report: Report) -> dict[str, Any]:
    """Accuracy and selectivity over alpha, and selectivity by layer."""
    found = over_alphas(lab, lambda recipe: {})
    write(
        report, "accuracy", found, ["clean accuracy"], "Accuracy against selectivity",
        ylabel="accuracy",
    )  # fmt: skip
    curves = {}
    for alpha in lab.preset.alphas:
        networks = [layers_selectivity(lab, recipe) for recipe in lab.of_alpha(alpha)]
        curves[f"alpha {alpha:g}"] = [over_seeds([n[key] for n in networks]) for key in networks[0]]
    report.lines(
        "layers", curves, xlabel="ReLU", ylabel="mean class selectivity",
        title="Selectivity by layer",
    )  # fmt: skip
    report.table(
        "layers",
        [
            {"layer": layer, **{alpha: curve[i] for alpha, curve in curves.items()}}
            for i, layer in enumerate(networks[0])
        ],
    )
    return findings(lab, found)
