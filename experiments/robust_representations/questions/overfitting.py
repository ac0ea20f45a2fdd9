"""Q3: which layers does robust overfitting change?"""

from __future__ import annotations

from typing import Any

from experiments.lab.comparisons import Comparison
from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import share

from ..recipes import Recipe
from ..robust_lab import RobustLab
from .common import STAGES, borders, depth_gap, diagonal, stage_mean_of, stage_means
from .seeds import baseline, usual


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
    pairs = yardstick.pairs.get("robust-robust", [])
    if pairs:
        changes["test, two seeds of question 1 instead"] = _between_seeds(yardstick.found, pairs)
    report.table("change", [{"images": split, **row} for split, row in changes.items()])
    return {
        "best epoch": best,
        "last epoch": recipe.epochs,
        "robust accuracy": {"best": robust[best], "last": robust[recipe.epochs]},
        "train accuracy": {e: history[e]["train accuracy"] for e in (best, recipe.epochs)},
        "evaluated images": len(lab.watched),
        "change": changes,
    }


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


def _between_seeds(found: Comparison, pairs: list[tuple[str, str]]) -> dict[str, Any]:
    """1 - CKA by stage, a mean over pairs of networks."""
    means = {s: stage_mean_of(found.stages(pairs[0][0]), s) for s in STAGES}

    def change(stage: str, grids: tuple[Any, ...]) -> float:
        return 1 - sum(map(means[stage], grids)) / len(grids)

    row = {s: found.estimate(lambda *g, s=s: change(s, g), *pairs) for s in STAGES}
    row["stage3 minus stage1"] = found.estimate(
        lambda *g: change(STAGES[-1], g) - change(STAGES[0], g), *pairs
    )
    return row
