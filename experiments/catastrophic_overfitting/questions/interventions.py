"""Q5: is the collapse gone where image and feature do not overlap, or high frequencies are cut?"""

from __future__ import annotations

from typing import Any

from experiments.lab.report import Report

from ..overfitting_lab import OverfittingLab
from ..recipes import Recipe
from .cells import cell


def run(lab: OverfittingLab, report: Report) -> dict[str, Any]:
    """Each intervention beside the same training without it, that of every seed."""
    rows: list[dict[str, Any]] = []
    found: dict[str, dict[str, Any]] = {}
    for name, by_seed in _kinds(lab).items():
        own = [lab.scores(recipe) for recipe in by_seed]
        rows += [
            {"training": name, "seed": f"{recipe.seed}", **one}
            for recipe, one in zip(by_seed, own, strict=True)
        ]
        found[name] = cell(lab, own)
    report.table("scores", rows)
    report.lines(
        "scores",
        {kind: [own[kind] for own in found.values()] for kind in ("clean", "robust")},
        xlabel=", ".join(f"{i} {name}" for i, name in enumerate(found)),
        ylabel="accuracy",
        title="Interventions on the images",
    )
    return found


def _kinds(lab: OverfittingLab) -> dict[str, list[Recipe]]:
    plain: dict[str, Any] = {"eps": lab.preset.plain, "beta": 0.0}
    passed = {**plain, "bandwidth": lab.preset.bandwidth}

    def of(seeds: tuple[int, ...], **changes: Any) -> list[Recipe]:
        return [lab.recipe(seed=seed, **changes) for seed in seeds]

    every, treated = lab.preset.seeds, lab.preset.treated
    return {
        "feature": of(every),
        "feature, complement": of(treated, removed=True),
        "no feature": of(every, **plain),
        "no feature, low pass of rows": of(treated, **passed, axes="rows"),
        "no feature, low pass": of(treated, **passed),
    }


def recipes(lab: OverfittingLab) -> list[Recipe]:
    """With and without each intervention."""
    return [recipe for by_seed in _kinds(lab).values() for recipe in by_seed]
