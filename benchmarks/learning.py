"""Whether robust training learns what the published runs learned: CIFAR-10, early epochs.

    python benchmarks/learning.py --data FOLDER [--minutes 8] [--out FILE.json]

Trains by published recipes (repsim_fast.training.recipes) in bfloat16 autocast and compares clean
and robust accuracy on the whole test set with the published ones at the same epoch. A value is
reached if it is at most ALLOWED points lower. Stops between epochs when the minutes are over, with
status 75: the same command goes on. Status 1: a value was not reached.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS)]
from timing import machine, machine_name, write_json  # noqa: E402

from repsim_fast import models  # noqa: E402
from repsim_fast.attacks import PGD  # noqa: E402
from repsim_fast.data import ImageData, load  # noqa: E402
from repsim_fast.training import (  # noqa: E402
    Epoch,
    Evaluation,
    Saving,
    StopTraining,
    recipes,
    train,
)

ALLOWED = 3.0
"""Points below a published accuracy that count as reached: seeds differ by one, and the images may
be JPEG copies."""

GO_ON = 75


@dataclass(frozen=True)
class Target:
    """Published accuracies of a recipe, in percent: {epoch: (clean, robust)}.

    Robust accuracy is under PGD of ``steps`` steps of 2/255 with ``restarts``.
    """

    published: dict[int, tuple[float, float]]
    source: str
    steps: int = 10
    restarts: int = 1
    verified: bool = True  # read at the source; others are shown, and give no verdict


TARGETS = {
    "pgd-rice2020": Target(
        {0: (37.95, 26.58), 9: (65.55, 40.37)}, "logs of locuslab/robust_overfitting"
    ),
    "rs-fgsm-wong2020": Target(
        {14: (79.30, 45.31)},
        "a rerun of locuslab/fast_adversarial (its issue 8); the paper says 83.81 and 46.06",
        steps=50,
        restarts=10,
    ),
    "n-fgsm-dejorge2022": Target(
        {29: (80.6, 48.1)},
        "de Jorge et al. 2022, from memory",
        steps=50,
        restarts=10,
        verified=False,
    ),
}


def learn(
    name: str,
    images: ImageData,
    unseen: ImageData,
    *,
    device: torch.device,
    folder: Path,
    deadline: float,
) -> list[dict[str, Any]]:
    """Train up to the last published epoch or the deadline; the epochs so far."""
    target, recipe = TARGETS[name], recipes.get(name)
    log, last = folder / "log.jsonl", max(target.published)

    def stop(_: torch.nn.Module, epoch: Epoch) -> None:
        if epoch.epoch >= last:
            raise StopTraining("that was the last published epoch")
        if time.monotonic() > deadline:
            raise StopTraining("the minutes are over")

    if len(epochs_of(log)) <= last and time.monotonic() <= deadline:
        architecture = {
            "name": recipe.model,
            "num_classes": len(images.classes),
            "in_channels": images.images.shape[1],
        }
        network = models.build(**architecture, seed=0).to(device, memory_format=torch.channels_last)
        every = 1 if target.restarts == 1 else last + 1  # many restarts take minutes
        settings = dict(recipe.settings)
        how = replace(settings.pop("optimisation"), autocast=torch.bfloat16)
        attack = PGD(
            recipe.eps or 0.0, step_size=2 / 255, steps=target.steps, restarts=target.restarts,
            seed=0,
        )  # fmt: skip
        train(
            network,
            images,
            **settings,
            optimisation=how,
            evaluation=Evaluation(unseen, attack, every=every),
            saving=Saving(folder, architecture, resume=True, log=log),
            on_epoch=stop,
            device=device,
            progress=sys.stderr.isatty(),
        )
    return epochs_of(log)


def _check_same(folder: Path, what: dict[str, Any]) -> None:
    """A log that is there must be of the same images: it would pass for a log of these."""
    note = folder / "images.json"
    if note.exists() and json.loads(note.read_text()) != what:
        sys.exit(f"{folder} holds a training on other images: choose another --work, or remove it")
    write_json(note, what)


def epochs_of(log: Path) -> list[dict[str, Any]]:
    """What a training's log says of its epochs so far."""
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def rows(name: str, epochs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A row for each published epoch."""
    target = TARGETS[name]
    found = []
    for epoch, (clean, robust) in target.published.items():
        ours = epochs[epoch]
        got = {"clean": 100 * ours["clean_accuracy"], "robust": 100 * ours["robust_accuracy"]}
        attack = f"PGD-{target.steps}" + (f"-{target.restarts}" if target.restarts > 1 else "")
        found.append(
            {
                "case": f"{name}, epoch {epoch}, {attack}",
                **got,
                "published_clean": clean,
                "published_robust": robust,
                "source": target.source,
                "reached": (
                    got["clean"] >= clean - ALLOWED and got["robust"] >= robust - ALLOWED
                    if target.verified
                    else None
                ),
                "seconds_an_epoch": sum(e["seconds"] for e in epochs) / len(epochs),
            }
        )
    return found


def shown(row: dict[str, Any]) -> str:
    """A row as text."""
    verdict = {True: "", False: "  NOT REACHED", None: "  (published values not verified)"}
    return (
        f"{row['case']:40} clean {row['clean']:5.2f} (published {row['published_clean']:5.2f})  "
        f"robust {row['robust']:5.2f} (published {row['published_robust']:5.2f})  "
        f"{row['seconds_an_epoch']:.1f} s an epoch{verdict[row['reached']]}"
    )


def main() -> int:
    """Exit status."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", required=True, help="as for `repsim-fast train`")
    parser.add_argument("--recipes", nargs="+", choices=tuple(TARGETS), default=tuple(TARGETS))
    parser.add_argument("--minutes", type=float, default=float("inf"))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--limit", type=int, help="images, for a trial of this script")
    parser.add_argument("--work", type=Path, default=Path("out/learning"))
    parser.add_argument("--out", type=Path, help="JSON file of the rows")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    images = load(options.data, "train", limit=options.limit)
    unseen = load(options.data, "test", limit=options.limit)
    out = options.out or BENCHMARKS / "results" / machine_name() / "learning.json"
    about = {"machine": machine(), "images": [len(images), len(unseen)], "allowed": ALLOWED}
    found: list[dict[str, Any]] = []
    for name in options.recipes:
        folder = options.work / name
        _check_same(folder, {"data": options.data, "images": about["images"]})
        epochs = learn(
            name,
            images,
            unseen,
            device=torch.device(options.device),
            folder=folder,
            deadline=deadline,
        )
        if len(epochs) <= max(TARGETS[name].published):
            print(f"{name}: the minutes are over; the same command goes on")
            return GO_ON
        found += rows(name, epochs)
        write_json(out, {**about, "rows": found})
        for row in found[-len(TARGETS[name].published) :]:
            print(shown(row), flush=True)
    return 1 if any(row["reached"] is False for row in found) else 0


if __name__ == "__main__":
    sys.exit(main())
