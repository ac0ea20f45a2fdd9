"""Options of the command: which preset, what it changes, which questions, where to."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path

from .experiment import Experiment
from .presets import Preset

_COUNTS = ("processes", "seeds", "epochs", "train_images", "test_images", "size")


def parse(experiment: Experiment, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options, checked as far as they go by themselves."""
    options = _parser(experiment).parse_args(arguments)
    options.only = _questions(experiment, options.only)
    for name in _COUNTS:
        value = getattr(options, name)
        if value is not None and value < 1:
            option = name.replace("_", "-")
            raise SystemExit(f"--{option}: expected at least 1, got {value}")
    if options.minutes is not None and not options.minutes >= 0:  # of NaN no time is too late
        raise SystemExit(f"--minutes: expected a number of at least 0, got {options.minutes}")
    return options


def chosen(experiment: Experiment, options: argparse.Namespace) -> tuple[Preset, str]:
    """The preset with what the command changes, and the name of its folders."""
    changes = {
        "dataset": options.dataset,
        "architecture": options.architecture,
        "image_size": options.size,
        "device": options.device,
        "epochs": options.epochs,
        "train_images": options.train_images,
        "test_images": options.test_images,
        "seeds": None if options.seeds is None else tuple(range(options.seeds)),
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    preset = dataclasses.replace(experiment.presets[options.preset], **changes)
    if changes.keys() - {"device"}:
        preset = dataclasses.replace(preset, absolute=False)
    named = [str(changes[key]) for key in ("dataset", "architecture") if key in changes]
    parts = [options.preset, *named]
    folder = options.name or "-".join(part.rstrip("/").rpartition("/")[2] for part in parts)
    return preset, folder


def _questions(experiment: Experiment, only: str | None) -> list[str]:
    known = list(experiment.questions)
    asked = known if only is None else [name.strip().upper() for name in only.split(",")]
    if unknown := [name for name in asked if name not in known]:
        raise SystemExit(f"--only: no question {unknown[0]!r}; there are {', '.join(known)}")
    return asked


def _parser(experiment: Experiment) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{experiment.folder.name}",
        description=experiment.description,
        epilog="An interrupted run goes on where it stopped. Exit status: 0 done, 2 cannot run "
        "here, 75 out of time (run again).",
    )
    add = parser.add_argument
    add("--preset", choices=experiment.presets, default=next(iter(experiment.presets)))
    add("--only", metavar="Q1,Q3", help="these questions only")
    add("--again", action="store_true", help="also questions that this code has answered")
    add("--minutes", type=float, help="stop in time, keeping everything, to go on later")
    add("--processes", type=int, default=1, help="networks trained side by side, before the rest")
    add("--dataset", help="digits, cifar10, tiny-imagenette, or what repsim_fast.data reads")
    add("--size", type=int, help="side of the images, where they are to be resized")
    add("--architecture", help="the usual network")
    add("--device", help="cpu or cuda")
    add("--epochs", type=int, help="of the usual trainings")
    add("--train-images", type=int)
    add("--test-images", type=int)
    add("--seeds", type=int, help="number of networks of each kind")
    add("--name", help="name of the results folder")
    folder = experiment.folder
    add("--work", type=Path, default=folder / "work", help="checkpoints and comparisons")
    add(
        "--cards",
        type=Path,
        help="keep what is known of networks there, not beside their "
        "weights: small files with which another machine goes on without these",
    )
    add("--results", type=Path, default=folder / "results")
    add("--readme", action="store_true", help="only write the README's tables from the results")
    add("--quiet", action="store_true", help="no progress bars")
    return parser
