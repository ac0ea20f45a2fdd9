"""Q2: which ways of training keep from the collapse that the feature induces?"""

from __future__ import annotations

from typing import Any

from experiments.lab.report import Report

from ..overfitting_lab import OverfittingLab
from ..recipes import Recipe
from .cells import cell


def run(lab: OverfittingLab, report: Report) -> dict[str, Any]:
    """FGSM of every seed and each cure at the radius of ``focus``."""
    rows: list[dict[str, Any]] = []
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for method in ("fgsm", *lab.preset.cures):
        for beta in lab.preset.cured:
            seeds = _seeds(lab, method)
            own = [lab.scores(lab.recipe(method, beta=beta, seed=seed)) for seed in seeds]
            rows += [
                {"method": method, "beta": f"{beta:g}", "seed": f"{seed}", **one}
                for seed, one in zip(seeds, own, strict=True)
            ]
            found.setdefault(method, {})[f"{beta:g}"] = cell(lab, own)
    report.table("scores", rows)
    report.lines(
        "robust",
        {m: [cell["robust"] for cell in cells.values()] for m, cells in found.items()},
        x=list(lab.preset.cured),
        xlabel="amplitude of the feature, 1/255",
        ylabel="robust accuracy",
        title=f"Ways of training at eps {lab.preset.focus[0]:g}/255",
    )
    return {"methods": found}


def _seeds(lab: OverfittingLab, method: str) -> tuple[int, ...]:
    return lab.preset.seeds if method == "fgsm" else lab.preset.treated


def recipes(lab: OverfittingLab) -> list[Recipe]:
    """FGSM and each cure."""
    return [
        lab.recipe(method, beta=beta, seed=seed)
        for method in ("fgsm", *lab.preset.cures)
        for beta in lab.preset.cured
        for seed in _seeds(lab, method)
    ]
