"""Q3: which layers does robust overfitting change?"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from experiments.lab.comparisons import Comparison
from experiments.lab.figures import mean_of
from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate, difference, share
from repsim_fast.analysis.grids import Array

from ..recipes import Recipe
from ..robust_lab import RobustLab
from .common import STAGES, borders, depth_gap, diagonal, stage_mean_of, stage_means
from .seeds import KINDS, Baseline, along_training, baseline, usual

RATIO = "stage3 / stage1"


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """The network of the best robust accuracy against the last, on training and on test images."""
    recipe = lab.overfitting()
    history = _history(lab, recipe)
    report.table("history", list(history.values()))
    robust = {e: row["robust accuracy"] for e, row in history.items()}
    best = max(recipe.keep, key=lambda e: robust[e].value)
    first, last = f"epoch {best}", f"epoch {recipe.epochs}"
    views = [View(f"epoch {e}", recipe, epoch=e) for e in (*recipe.keep, recipe.epochs)]
    curves, changes = {}, {}
    for split in ("train", "test"):
        found = lab.compare(views, recipe if split == "train" else None)
        curves[f"{split} images, best (epoch {best}) and last"] = found.curve(
            diagonal, (first, last)
        )
        changes[split] = stage_means(found, first, last, change=True)
        changes[split]["stage3 minus stage1"] = depth_gap(found, first, last)
        changes[split][RATIO] = found.estimate(_ratio_of_changes(found, last), (first, last))
        steps = [stage_means(found, v.name, last) for v in views]
        report.table(
            f"with_last_{split}",
            [{"epoch": v.epoch, **row} for v, row in zip(views, steps, strict=True)],
        )
    report.lines(
        "with_last", {stage: [row[stage] for row in steps] for stage in STAGES},
        x=[v.epoch for v in views], xlabel="epoch",
        ylabel="CKA with the last epoch, same layer",
        title="Robust training on few images: when stages settle (test images)",
    )  # fmt: skip
    report.lines(
        "best_last", curves, xlabel="layer", ylabel="CKA, best with last epoch",
        title="What robust training changes after its best epoch",
        borders=borders(found.stages(last)),
    )  # fmt: skip
    # How far apart two trainings end that differ by their seed: the usual robust networks'.
    yardstick = baseline(lab)
    if "robust-robust" in yardstick.pairs:
        changes["test, two seeds of question 1 instead"] = _between_seeds(yardstick)
    # And what training does to layers that goes on without overfitting.
    if ordinary := _ordinary(lab):
        changes["test, end of question 1's robust training instead"] = ordinary
    report.table("change", [{"images": split, **row} for split, row in changes.items()])
    return {
        "best epoch": best,
        "last epoch": recipe.epochs,
        "robust accuracy": {"best": robust[best], "last": robust[recipe.epochs]},
        "train accuracy": {e: history[e]["train accuracy"] for e in (best, recipe.epochs)},
        "evaluated images": len(lab.watched),
        "change": changes,
        "ordinary": ordinary and {
            **ordinary, f"{RATIO}, overfitting minus this": difference(
                changes["test"][RATIO], ordinary[RATIO]
            ),
        },
    }  # fmt: skip


def recipes(lab: RobustLab) -> list[Recipe]:
    """The long training, and the usual networks as a yardstick."""
    return [lab.overfitting(), *usual(lab)]


def _history(lab: RobustLab, recipe: Recipe) -> dict[int, dict[str, Any]]:
    """Accuracies by the number of epochs done, of the epochs that were evaluated."""
    images, watched = recipe.images or len(lab.train_data), len(lab.watched)
    return {
        line["epoch"] + 1: {
            "epoch": line["epoch"] + 1,
            # Of the images as they were perturbed, while the network was learning from them.
            "train accuracy": share(line["train_accuracy"], min(images, len(lab.train_data))),
            "clean accuracy": share(line["clean_accuracy"], watched),
            "robust accuracy": share(line["robust_accuracy"], watched),
        }
        for line in lab.networks.history(recipe)
        if line["robust_accuracy"] is not None
    }


def _between_seeds(yardstick: Baseline) -> dict[str, Estimate]:
    """1 - CKA by stage, a mean over pairs of networks."""
    stages = yardstick.found.stages(next(iter(yardstick.seeds)))
    means = {s: stage_mean_of(stages, s) for s in STAGES}
    early, deep = means[STAGES[0]], means[STAGES[-1]]

    def change(stage: str, grid: Array) -> float:
        return 1 - means[stage](grid)

    indices: dict[str, Callable[[Array], float]] = {s: partial(change, s) for s in STAGES}
    indices["stage3 minus stage1"] = lambda grid: early(grid) - deep(grid)
    return {name: yardstick.over_pairs("robust-robust", f) for name, f in indices.items()}


def _ordinary(lab: RobustLab) -> dict[str, Estimate] | None:
    """1 - CKA by stage from the last kept epoch of the usual robust networks to their end.

    None where that is no late part of the training.
    """
    if not lab.kept_epochs or lab.kept_epochs[-1] < lab.preset.epochs / 2:
        return None
    rows = []
    for seed in lab.preset.seeds:
        views, found = along_training(lab, KINDS[1], seed)
        before, last = views[-2].name, views[-1].name
        row = stage_means(found, before, last, change=True)
        row["stage3 minus stage1"] = depth_gap(found, before, last)
        row[RATIO] = found.estimate(_ratio_of_changes(found, last), (before, last))
        rows.append(row)
    return mean_of(rows)


def _ratio_of_changes(found: Comparison, view: str) -> Callable[[Array], float]:
    """(1 - CKA of stage 3) / (1 - CKA of stage 1), as a function of a grid."""
    early, deep = (stage_mean_of(found.stages(view), s) for s in (STAGES[0], STAGES[-1]))

    def ratio(grid: Array) -> float:
        least = 1 - early(grid)
        return (1 - deep(grid)) / least if least > 0 else float("nan")

    return ratio
