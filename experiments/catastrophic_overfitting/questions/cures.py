"""Q2: which ways of training keep from the collapse that the feature induces?"""

from __future__ import annotations

from typing import Any

from experiments.lab.report import Report

from ..overfitting_lab import OverfittingLab
from ..recipes import Recipe
from ..regimes import is_collapsed


def run(lab: OverfittingLab, report: Report) -> dict[str, Any]:
    """FGSM and each cure at the radius of ``focus``."""
    rows: list[dict[str, Any]] = []
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for method in ("fgsm", *lab.preset.cures):
        for beta in lab.preset.cured:
            own = lab.scores(lab.recipe(method, beta=beta))
            gone = is_collapsed(own, len(lab.carriers))
            rows.append({"method": method, "beta": f"{beta:g}", **own})
            found.setdefault(method, {})[f"{beta:g}"] = {
                "clean": own["clean"], "robust": own["robust"], "collapsed": gone,
            }  # fmt: skip
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


def recipes(lab: OverfittingLab) -> list[Recipe]:
    """FGSM and each cure."""
    return [lab.recipe(m, beta=b) for m in ("fgsm", *lab.preset.cures) for b in lab.preset.cured]
