"""The command: presets, checks before starting, questions, claims."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from . import claims, datasets, readme
from .lab import Lab
from .networks import OutOfTime
from .presets import PRESETS, Preset
from .questions import QUESTIONS, measures
from .record import Record
from .report import Report, write_json

HERE = Path(__file__).parent
UNABLE = 2
GO_ON = 75  # EX_TEMPFAIL: run the same command again


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit status: 0 done, 2 cannot run here, 75 run again to go on."""
    args = _parser().parse_args(arguments)
    if args.readme:
        path = HERE / "README.md"
        path.write_text(readme.updated(path.read_text(), args.results))
        return 0
    preset, folder = _chosen(args)
    asked = _questions(args.only)
    deadline = None if args.minutes is None else time.monotonic() + 60 * args.minutes
    try:
        check(preset)
        lab = Lab(preset, args.work / folder, deadline=deadline, progress=not args.quiet)
        measures.check(lab)
    except (ValueError, OSError, ImportError) as error:
        print(f"preset {preset.name!r} cannot run here: {error}", file=sys.stderr)
        return UNABLE
    print(
        f"preset {preset.name}: {preset.architecture} on {preset.dataset}, {preset.device}; "
        f"{', '.join(asked)}; about {preset.minutes} min for all questions"
    )
    results = args.results / folder
    record = Record(results / "run.json", preset)
    for number in asked:
        title, run = QUESTIONS[number]
        if record.has(number) and not args.again:
            print(f"{number} {title}: answered already, by this very code")
            continue
        print(f"{number} {title} ...", flush=True)
        began, worked, trained = time.perf_counter(), time.process_time(), lab.networks.trained
        report = Report(results, number)
        try:
            found = run(lab, report)
        except (OutOfTime, KeyboardInterrupt) as stop:
            print(f"{stop or 'interrupted'}: the same command goes on from here", file=sys.stderr)
            return GO_ON
        seconds = round(time.perf_counter() - began, 1)
        report.findings(found)
        record.add(
            number,
            lab.networks.seconds,
            seconds=seconds,
            cpu_seconds=round(time.process_time() - worked, 1),
            networks_trained=lab.networks.trained - trained,
        )
        _judge(results, record, preset)
        print(f"{number} done in {seconds} s", flush=True)
        if deadline is not None and time.monotonic() > deadline and number != asked[-1]:
            print("time is over: the same command goes on from here", file=sys.stderr)
            return GO_ON
    print((results / "claims.md").read_text())
    return 0


def check(preset: Preset) -> None:
    """Raises ValueError if the device or the data are not there."""
    if preset.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("it needs a CUDA device, and torch finds none (try --preset cpu)")
    datasets.find(preset.dataset)


def _judge(results: Path, record: Record, preset: Preset) -> None:
    found = {
        question: json.loads((results / f"{question}.json").read_text())["findings"]
        for question in record.questions
    }
    rows = claims.judge(found, preset)
    write_json(results / "claims.json", [dataclasses.asdict(row) for row in rows])
    (results / "claims.md").write_text(claims.markdown(rows))


def _chosen(args: argparse.Namespace) -> tuple[Preset, str]:
    """The preset with what the command changes, and the name of its folders."""
    changes = {
        "dataset": args.dataset,
        "architecture": args.architecture,
        "image_size": args.size,
        "device": args.device,
        "epochs": args.epochs,
        "train_images": args.train_images,
        "test_images": args.test_images,
        "seeds": None if args.seeds is None else tuple(range(args.seeds)),
    }
    changes = {name: value for name, value in changes.items() if value is not None}
    preset = dataclasses.replace(PRESETS[args.preset], **changes)
    if changes.keys() - {"device"}:
        preset = dataclasses.replace(preset, absolute=False)
    parts = [args.preset, *(str(v) for k, v in changes.items() if k in ("dataset", "architecture"))]
    folder = args.name or "-".join(p.rstrip("/").rpartition("/")[2] for p in parts)
    return preset, folder


def _questions(only: str | None) -> list[str]:
    if only is None:
        return list(QUESTIONS)
    asked = [name.strip().upper() for name in only.split(",")]
    if unknown := [name for name in asked if name not in QUESTIONS]:
        raise SystemExit(f"--only: no question {unknown[0]!r}; there are {', '.join(QUESTIONS)}")
    return asked


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="run.py",
        description="What robust training does to representations.",
        epilog="An interrupted run goes on where it stopped. Exit status: 0 done, 2 cannot run "
        "here, 75 out of time (run again).",
    )
    add = parser.add_argument
    add("--preset", choices=PRESETS, default="smoke")
    add("--only", metavar="Q1,Q3", help="these questions only")
    add("--again", action="store_true", help="also questions that this code has answered")
    add("--minutes", type=float, help="stop in time, keeping everything, to go on later")
    add("--dataset", help="digits, cifar10, tiny-imagenette, or what repsim_fast.data reads")
    add("--size", type=int, help="side of the images, where they are to be resized")
    add("--architecture", help="network of all questions but Q4")
    add("--device", help="cpu or cuda")
    add("--epochs", type=int, help="of every training but that of Q3")
    add("--train-images", type=int)
    add("--test-images", type=int)
    add("--seeds", type=int, help="number of networks of each kind")
    add("--name", help="name of the results folder")
    add("--work", type=Path, default=HERE / "work", help="checkpoints and comparisons")
    add("--results", type=Path, default=HERE / "results")
    add("--readme", action="store_true", help="only write the README's tables from the results")
    add("--quiet", action="store_true", help="no progress bars")
    return parser
