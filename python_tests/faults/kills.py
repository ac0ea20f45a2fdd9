"""Kills at random moments of a training, a comparison, a recording, an attack, an experiment."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any

from experiments.lab import command as lab_command
from experiments.lab import record
from python_tests.faults import counting
from python_tests.faults.child import Ended, command, run
from python_tests.faults.table import Row
from python_tests.support import toy_experiment
from repsim_fast import Recording, SimilarityResult
from repsim_fast._core.tensor_files import read_tensors
from repsim_fast.comparison.recording_files import unfinished_parts
from repsim_fast.report import load_folder
from repsim_fast.training.checkpoints import unfinished

EPOCHS = 6
TRAIN = [
    *("train", "--data", "digits", "--model", "resnet-8", "--epochs", EPOCHS, "--limit", 60),
    *("--test-limit", 20, "--batch-size", 30, "--threads", 1, "--device", "cpu"),
]
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT,
           signal.SIGHUP)  # fmt: skip


def training(folder: Path, kills: int, dice: random.Random) -> Row:
    """Each training is killed and resumed until it is done, and compared to one that was not."""
    row = Row("kill while training", "resumes, at most one epoch lost; the same bits in the end")
    out, log = folder / "network.safetensors", folder / "log"
    whole = run(command(*TRAIN, "--out", folder / "whole.safetensors"), log)
    assert whole.code == 0, whole.output
    expected = _tensors(folder / "whole.safetensors")
    state = folder / "network.training" / "resume.safetensors"
    done = 0
    numbers = cycle(SIGNALS)
    while row.tried < kills:
        number = next(numbers)
        ended = run(
            command(*TRAIN, "--out", out, "--resume"), log, number=number,
            after=dice.uniform(0, 0.5 * whole.seconds),
        )  # fmt: skip
        if ended.code == 0:
            got = _tensors(out)
            wrong = not _equal(got, expected)
            row.count("lost" if wrong else "survived", "other bits after resuming")
            out.unlink()
            shutil.rmtree(folder / "network.training")
            done = 0
            continue
        shown = ended.output.count("epoch ")
        before, done = done, _epochs(state)
        fault = ""
        if done < before + shown - 1:
            fault = f"{before} before, {shown} shown, {done} kept: {ended.code} {ended.output}"
        if not _ended_by(ended, number):
            fault = f"exit {ended.code}: {ended.output[-300:]}"
        if not fault and state.exists():
            # Without saying which way on, it must be refused and nothing touched.
            content = state.read_bytes()
            asked = run(command(*TRAIN, "--out", out), log)
            if asked.code != 1 or "--no-resume" not in asked.output:
                fault = f"not refused: {asked.code} {asked.output[-300:]}"
            if state.read_bytes() != content:
                fault = "state overwritten"
        row.count("lost" if fault else "survived", fault)
    return row


def _ended_by(ended: Ended, number: int) -> bool:
    # "Aborted!": Ctrl-C while the command line was still being read.
    return ended.code in (-number, 128 + number) or "Aborted!" in ended.output


def _epochs(state: Path) -> int:
    if not state.exists():
        return 0
    far = unfinished(state)
    return EPOCHS if far is None else int(far.split()[0])


def _tensors(path: Path) -> dict[str, Any]:
    return read_tensors(path)[1]


def _equal(a: dict[str, Any], b: dict[str, Any]) -> bool:
    return a.keys() == b.keys() and all(bool((a[key] == b[key]).all()) for key in a)


def comparing(folder: Path, kills: int, dice: random.Random) -> Row:
    """A comparison over an older one: the folder has the one or the other, whole."""
    row = Row(
        "kill while comparing",
        "the old comparison or the new one, whole; what a signal kept loads",
    )
    out, log = folder / "out", folder / "log"

    def words(layers: str) -> list[object]:
        return [
            *("compare", "resnet-8", "--data", "digits", "--limit", 200, "--batch-size", 8),
            *("--layers", layers, "--threads", 1, "--out", out),
        ]

    first = run(command(*words("fc")), log)
    assert first.code == 0, first.output
    seconds = run(command(*words("stage*")), log).seconds
    kinds = cycle(("fc", "stage*"))
    for number, layers in zip(_some(kills), kinds, strict=False):
        ended = run(command(*words(layers)), log, number=number, after=dice.uniform(0, seconds))
        row.count(*_verdict(lambda: _whole(out), ended, number))
    return row


def _some(kills: int) -> Iterator[int]:
    numbers = cycle(SIGNALS)
    return (next(numbers) for _ in range(kills))


def _verdict(check: Callable[[], str], ended: Ended, number: int) -> tuple[str, str]:
    if ended.code != 0 and not _ended_by(ended, number):
        return "lost", f"exit {ended.code}: {ended.output[-300:]}"
    try:
        fault = check()
    except Exception as error:
        fault = f"{type(error).__name__}: {error}"
    return ("lost", fault) if fault else ("survived", "")


def _whole(out: Path) -> str:
    result = load_folder(out)  # checks each file against the manifest
    listed = set(json.loads((out / "manifest.json").read_text())["files"])
    there = {path.name for path in out.iterdir() if not path.name.startswith(".")}
    extra = there - listed - {"manifest.json", "partial.safetensors"}
    if (out / "partial.safetensors").exists():
        partial = SimilarityResult.load(out / "partial.safetensors")
        if not 1 <= partial.n_batches <= 25:
            return f"a partial result of {partial.n_batches} batches"
    return f"files of no comparison: {extra}" if extra or not result.models else ""


_EVERY, _BATCHES = 4, 20


def recording(folder: Path, kills: int, dice: random.Random) -> Row:
    """Each recording is killed and gone on with until it is done, and compared to a whole one."""
    row = Row(
        "kill while recording",
        f"goes on, at most the {_EVERY} batches of a part lost; the same bits in the end",
    )
    passed, log = folder / "passed", folder / "log"
    os.environ[counting.PASSED] = str(passed)

    def work(out: Path) -> Callable[[], int | None]:
        return command(
            *("record", f"{counting.__file__}:Counting", "--data", "digits", "--split", "train"),
            *("--batch-size", counting.BATCH_SIZE, "--limit", _BATCHES * counting.BATCH_SIZE),
            *("--every", _EVERY, "--threads", 1, "--out", out),
        )

    whole = run(work(folder / "whole"), log)
    assert whole.code == 0, whole.output
    expected = _recorded(folder / "whole")
    for number in _some(kills):
        before = _batches(folder / "killed")
        passed.write_bytes(b"")
        after = dice.uniform(0.2, 1) * whole.seconds  # before, nothing has begun
        ended = run(work(folder / "killed"), log, number=number, after=after)
        row.count(*_verdict(partial(_went_on, folder / "killed", before, passed), ended, number))
        if ended.code == 0:
            if not _equal(_recorded(folder / "killed"), expected):
                row.count("lost", "other bits after going on")
            shutil.rmtree(folder / "killed")
    ended = run(work(folder / "killed"), log)
    if ended.code != 0 or not _equal(_recorded(folder / "killed"), expected):
        row.count("lost", f"the last run: {ended.code} {ended.output[-300:]}")
    return row


def _went_on(out: Path, before: int, passed: Path) -> str:
    """What is wrong with how many batches are kept: the last pass may not have come to its end, and
    the first batch is run again."""
    kept, ran = _batches(out), len(passed.read_bytes()) - (before > 0)
    if kept < before or kept < before + ran - 1 - _EVERY:
        return f"{before} batches before, {ran} run, {kept} kept"
    return ""


def _batches(out: Path) -> int:
    """Batches of the one recording there, finished or not."""
    return sum(len(p["batches"]) for path in out.glob("*/") for p in unfinished_parts(path))


def _recorded(out: Path) -> dict[str, Any]:
    (path,) = (path for path in out.iterdir() if path.is_dir())
    found = Recording.open(path)
    grams = {f"{batch.number}": found.grams(batch, part).clone() for batch, part in found.parts()}
    return {**grams, "scales": found.scales}


def attacking(folder: Path, kills: int, dice: random.Random) -> Row:
    row = Row("kill while attacking", "no file or the old one, whole; the next run the same bits")
    network, out, log = folder / "n.safetensors", folder / "adv.safetensors", folder / "log"
    assert run(command(*TRAIN, "--epochs", 1, "--out", network), log).code == 0
    words = [
        *("attack", network, "--data", "digits", "--attack", "pgd", "--eps", 0.1, "--steps", 20),
        *("--limit", 100, "--batch-size", 20, "--threads", 1, "--device", "cpu", "--out", out),
    ]
    whole = run(command(*words), log)
    assert whole.code == 0, whole.output
    expected = _tensors(out)

    def check() -> str:
        there = out.exists()
        if there and not _equal(_tensors(out), expected):
            return "other images"
        if there and dice.random() < 0.5:
            out.unlink()
        return ""

    for number in _some(kills):
        ended = run(command(*words), log, number=number, after=dice.uniform(0, whole.seconds))
        row.count(*_verdict(check, ended, number))
    assert run(command(*words), log).code == 0
    left = [path.name for path in folder.iterdir() if ".part" in path.name]
    if left or not _equal(_tensors(out), expected):
        row.count("lost", f"after the last run: {left or 'other images'}")
    return row


def experiment(folder: Path, kills: int, dice: random.Random) -> Row:
    """A small experiment is started again until it is done, and compared to one that was not."""
    row = Row("kill in an experiment", "the same command goes on; the same findings in the end")
    log = folder / "log"
    record.commit = lambda code: "0123456789ab"  # answers of changed code would not count

    def work(name: str) -> Callable[[], int]:
        places = ["--work", str(folder / name / "w"), "--results", str(folder / name / "r")]
        return lambda: lab_command.main(toy_experiment.experiment(folder), [*places, "--quiet"])

    whole = run(work("whole"), log)
    assert whole.code == 0, whole.output
    expected = _findings(folder / "whole")
    for number in _some(kills):
        after = dice.uniform(0, 0.7 * whole.seconds)
        ended = run(work("killed"), log, number=number, after=after)
        if ended.code == 0:
            same = _findings(folder / "killed") == expected
            row.count("survived" if same else "lost", "other findings")
            shutil.rmtree(folder / "killed")
        elif ended.code == lab_command.GO_ON or _ended_by(ended, number):
            row.count("survived")
        else:
            row.count("lost", f"exit {ended.code}: {ended.output[-300:]}")
    ended = run(work("killed"), log)
    if ended.code != 0 or _findings(folder / "killed") != expected:
        row.count("lost", f"the last run: {ended.code} {ended.output[-300:]}")
    return row


def _findings(folder: Path) -> list[Any]:
    results = folder / "r" / "smoke"
    return [json.loads((results / f"{q}.json").read_text())["findings"] for q in ("Q1", "Q2")]
