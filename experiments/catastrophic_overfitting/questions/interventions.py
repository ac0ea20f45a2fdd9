"""Q5: is the collapse gone where image and feature do not overlap, or high frequencies are cut?"""

from __future__ import annotations

from typing import Any

from experiments.lab.report import Report

from ..overfitting_lab import OverfittingLab
from ..recipes import Recipe
from ..regimes import is_collapsed


def run(lab: OverfittingLab, report: Report) -> dict[str, Any]:
    """Each intervention beside the same training without it."""
    found: dict[str, dict[str, Any]] = {}
    for name, recipe in _kinds(lab).items():
        own = lab.scores(recipe)
        gone = is_collapsed(own, len(lab.carriers))
        found[name] = {"clean": own["clean"], "robust": own["robust"], "collapsed": gone}
    report.table("scores", [{"training": name, **own} for name, own in found.items()])
    report.lines(
        "scores",
        {kind: [own[kind] for own in found.values()] for kind in ("clean", "robust")},
        xlabel=", ".join(f"{i} {name}" for i, name in enumerate(found)),
        ylabel="accuracy",
        title="Interventions on the images",
    )
    return found


def _kinds(lab: OverfittingLab) -> dict[str, Recipe]:
    plain: dict[str, Any] = {"eps": lab.preset.plain, "beta": 0.0}
    return {
        "feature": lab.recipe(),
        "feature, complement": lab.recipe(removed=True),
        "no feature": lab.recipe(**plain),
        "no feature, low pass of rows": lab.recipe(
            **plain, bandwidth=lab.preset.bandwidth, axes="rows"
        ),
        "no feature, low pass": lab.recipe(**plain, bandwidth=lab.preset.bandwidth),
    }


def recipes(lab: OverfittingLab) -> list[Recipe]:
    """With and without each intervention."""
    return list(_kinds(lab).values())
