"""The command of an experiment: checks before starting, questions, claims."""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from repsim_fast._core.files import check_writable
from repsim_fast._core.locks import only_writer
from repsim_fast._core.signals import as_interrupts

from . import claims, readme, side_by_side
from .experiment import Experiment
from .files import write_json, write_text
from .lab import Lab
from .networks import OutOfTime
from .options import chosen, parse
from .presets import Preset
from .recipes import Recipe
from .record import Record
from .report import Report

UNABLE = 2
GO_ON = 75  # EX_TEMPFAIL: run the same command again


def main(experiment: Experiment, arguments: Sequence[str] | None = None) -> int:
    """Run, and return the exit status: 0 done, 2 cannot run here, 75 run again to go on."""
    try:
        options = parse(experiment, arguments)
        if options.readme:
            path = experiment.folder / "README.md"
            write_text(path, readme.updated(path.read_text(), options.results, experiment.blocks))
            return 0
        preset, name = chosen(experiment, options)
        with contextlib.ExitStack() as stack:
            stack.enter_context(as_interrupts())
            return _run(experiment, options, preset, name, stack)
    except (OutOfTime, KeyboardInterrupt) as stop:
        print(f"{str(stop) or 'interrupted'}: the same command goes on from here", file=sys.stderr)
        return GO_ON


def _run(
    experiment: Experiment,
    options: Any,
    preset: Preset,
    name: str,
    stack: contextlib.ExitStack,
) -> int:
    deadline = None if options.minutes is None else time.monotonic() + 60 * options.minutes
    try:
        _check_device(preset)
        lab = experiment.lab(
            preset,
            options.work / name,
            cards=options.cards,
            deadline=deadline,
            progress=not options.quiet,
        )
        experiment.check(lab)
        kept = [] if options.cards is None else [options.cards]
        for folder in (options.work / name, options.results / name, *kept):
            stack.enter_context(only_writer(check_writable(folder)))
    except (ValueError, OSError, ImportError) as error:
        print(f"preset {preset.name!r} cannot run here: {error}", file=sys.stderr)
        return UNABLE
    print(
        f"preset {preset.name}: {preset.architecture} on {preset.dataset}, {preset.device}, "
        f"{_precision(preset)}; "
        f"{', '.join(options.only)}; about {preset.minutes} min for all questions"
    )
    results = options.results / name
    record = Record(results / "run.json", preset, experiment.folder)
    if options.processes > 1:
        asked: dict[Recipe, list[side_by_side.Measure]] = {}
        for question in map(experiment.questions.__getitem__, options.only):
            for recipe in question.recipes(lab):
                asked.setdefault(recipe, []).append(question.measure)
        side_by_side.train(
            experiment.lab, preset, options.work / name, asked,
            cards=options.cards, processes=options.processes, deadline=deadline,
        )  # fmt: skip
    for number in options.only:
        title = experiment.questions[number].title
        if record.has(number) and not options.again:
            print(f"{number} {title}: answered already, by this very code")
            continue
        if deadline is not None and time.monotonic() > deadline:
            raise OutOfTime("time is over")
        print(f"{number} {title} ...", flush=True)
        seconds = _answer(experiment, lab, record, number)
        _judge(experiment, record, preset)
        print(f"{number} done in {seconds} s", flush=True)
    print((results / "claims.md").read_text())
    return 0


def _precision(preset: Preset) -> str:
    if preset.half is not None:
        return str(preset.half).removeprefix("torch.")
    slow = preset.autocast == "auto"
    return "float32" + " (no native bfloat16 here: it takes longer)" * slow


def _check_device(preset: Preset) -> None:
    if preset.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError("it needs a CUDA device, and torch finds none (try --preset cpu)")


def _answer(experiment: Experiment, lab: Lab[Any, Any], record: Record, number: str) -> float:
    """Answer a question and record it; gives the seconds it took."""
    began, worked, trained = time.perf_counter(), time.process_time(), lab.networks.trained
    report = Report(record.path.parent, number)
    report.findings(experiment.questions[number].run(lab, report))
    seconds = round(time.perf_counter() - began, 1)
    record.add(
        number,
        lab.networks.used,
        seconds=seconds,
        cpu_seconds=round(time.process_time() - worked, 1),
        networks_trained=lab.networks.trained - trained,
    )
    return seconds


def _judge(experiment: Experiment, record: Record, preset: Preset) -> None:
    results: Path = record.path.parent
    found = {question: readme.findings(results, question) for question in record.questions}
    rows = claims.judge(experiment.claims, found, preset)
    write_json(results / "claims.json", [dataclasses.asdict(row) for row in rows])
    write_text(results / "claims.md", claims.markdown(rows))
