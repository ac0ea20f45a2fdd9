"""Full disks: a small tmpfs where one can be mounted, else a limit on the size of files."""

from __future__ import annotations

import random
import resource
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from python_tests.faults.child import command, run
from python_tests.faults.kills import TRAIN
from python_tests.faults.table import Row
from repsim_fast import Recording
from repsim_fast.comparison.recording_files import unfinished_parts
from repsim_fast.models import load_checkpoint
from repsim_fast.report import load_folder


def full(folder: Path, tries: int, dice: random.Random) -> Row:
    mounted = _can_mount(folder)
    kind = "tmpfs" if mounted else "limit on the size of files"
    row = Row(f"full disk ({kind})", "all fits; refused: a line of the system's error, old whole")
    log = folder / "log"
    network, comparison, recordings = "n.safetensors", "compared", "recorded"
    compare = ["compare", "resnet-8", "--data", "digits", "--limit", 64, "--threads", 1]
    record = ["record", "resnet-8", "--data", "digits", "--limit", 160, "--batch-size", 8]
    record += ["--every", 2, "--threads", 1]
    for number in range(tries):
        place = folder / f"disk{number}"
        place.mkdir()
        kibibytes = dice.randrange(8, 300 if number % 3 == 2 else 3_000)
        words = (
            [*TRAIN, "--epochs", 2, "--out", place / network],
            [*compare, "--layers", "fc", "--out", place / comparison],
            [*record, "--out", place / recordings],
        )[number % 3]
        with _disk(place, kibibytes) if mounted else _none():
            if number % 6 >= 3 and number % 3 < 2:  # over something older
                run(command(*words), log)
                _fill(place, dice, mounted)
                words += ["--no-resume"] if number % 3 == 0 else []
            limit = None if mounted else kibibytes * 200
            ended = run(lambda: _limited(limit, words), log)  # noqa: B023
            fault = _fault(place, ended.code, ended.output)
            if not fault and ended.code and number % 3 == 2:  # with room, it goes on
                if mounted:
                    _resize(place)
                again = run(command(*words), log)
                fault = f"not gone on: {again.output[-300:]}" if again.code else ""
        outcome = "lost" if fault else "survived" if ended.code == 0 else "refused"
        row.count(outcome, f"{kibibytes} KiB {words}: {fault}")
    return row


def _limited(size: int | None, words: list[object]) -> int | None:
    if size is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # then it is an error of the write
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    return command(*words)()


def _fault(place: Path, code: int, output: str) -> str:
    if code not in (0, 1):
        return f"exit {code}: {output[-500:]}"
    if code == 1 and (
        "error: unexpected" in output or "Traceback" in output or "error: " not in output
    ):
        return f"no explanation: {output[-500:]}"
    network, compared = place / "n.safetensors", place / "compared"
    recorded = place / "recorded" / "resnet-8"
    try:
        if code == 0 and recorded.exists():
            Recording.open(recorded)
        unfinished_parts(recorded)  # each is whole

        if network.exists():
            load_checkpoint(network)
        if (compared / "manifest.json").exists():
            load_folder(compared)
    except ValueError as error:
        return f"damaged: {error}"
    return ""


def _fill(place: Path, dice: random.Random, mounted: bool) -> None:
    """Leave a few kilobytes."""
    if not mounted:
        return
    try:
        with (place / "filler").open("wb") as file:
            while True:
                file.write(bytes(4096))
                file.flush()
    except OSError:
        pass
    size = (place / "filler").stat().st_size
    with (place / "filler").open("r+b") as file:
        file.truncate(max(0, size - 4096 * dice.randrange(40)))


def _can_mount(folder: Path) -> bool:
    place = folder / "mount"
    place.mkdir()
    try:
        with _disk(place, 100):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def _disk(place: Path, kibibytes: int) -> Iterator[None]:
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kibibytes}k", "tmpfs", str(place)]
    subprocess.run(mount, check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def _resize(place: Path) -> None:
    """Make a disk of some MiB of it."""
    command = ["mount", "-o", "remount,size=8m", str(place)]
    subprocess.run(command, check=True, capture_output=True)


@contextmanager
def _none() -> Iterator[None]:
    yield
