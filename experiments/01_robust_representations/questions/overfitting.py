"""Q3: which layers does robust overfitting change?"""

from __future__ import annotations

from typing import Any

from ..lab import Lab, View
from ..report import Report
from .common import STAGES, borders, depth_gap, diagonal, stage_means

HISTORY = ("epoch", "loss", "train_accuracy", "clean_accuracy", "robust_accuracy")


def run(lab: Lab, report: Report) -> dict[str, Any]:
    """The network of the best robust accuracy against the last, on training and on test images."""
    setting = lab.preset.overfitting
    recipe = lab.recipe(
        images=setting.images,
        epochs=setting.epochs,
        watch=True,
        keep=tuple(range(setting.every, setting.epochs, setting.every)),
    )
    history = lab.networks.history(recipe)
    report.table(
        "history",
        [{key: epoch[key] for key in HISTORY} for epoch in history],
    )
    # log line e is the state after e + 1 epochs
    kept = {e: history[e - 1]["robust_accuracy"] for e in (*recipe.keep, recipe.epochs)}
    best = max(recipe.keep, key=lambda e: kept[e])
    curves, changes = {}, {}
    for split in ("train", "test"):
        views = [View(f"epoch {e}", recipe, epoch=e) for e in (*recipe.keep, recipe.epochs)]
        found = lab.compare(views, recipe if split == "train" else None)
        first, last = f"epoch {best}", f"epoch {recipe.epochs}"
        curves[f"{split} images, best (epoch {best}) and last"] = found.curve(
            diagonal, (first, last)
        )
        changes[split] = stage_means(found, first, last, change=True)
        changes[split]["stage3 minus stage1"] = depth_gap(found, first, last)
        report.table(
            f"with_last_{split}",
            [{"epoch": v.epoch, **stage_means(found, v.name, last)} for v in views],
        )
        if split == "test":
            steps: dict[str, list[Any]] = {s: [] for s in STAGES}
            for v in views:
                for stage, value in stage_means(found, v.name, last).items():
                    steps[stage].append(value)
            report.lines(
                "with_last", steps, x=[v.epoch for v in views], xlabel="epoch",
                ylabel="CKA with the last epoch, same layer",
                title="Robust training on few images: when stages settle (test images)",
            )  # fmt: skip
    report.lines(
        "best_last", curves, xlabel="layer", ylabel="CKA, best with last epoch",
        title="What robust training changes after its best epoch",
        borders=borders(found.stages(last)),
    )  # fmt: skip
    report.table("change", [{"images": split, **row} for split, row in changes.items()])
    return {
        "best epoch": best,
        "last epoch": recipe.epochs,
        "robust accuracy": {"best": kept[best], "last": kept[recipe.epochs]},
        "train accuracy": {
            "best": history[best - 1]["train_accuracy"], "last": history[-1]["train_accuracy"]
        },
        "evaluated images": len(lab.networks.eval_data),
        "change": changes,
    }  # fmt: skip
