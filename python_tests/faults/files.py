"""Files of every format, changed at random: each must load or be refused by its documented error.

The work is done in children: a crash or a hang is one of theirs.
"""

from __future__ import annotations

import json
import random
import resource
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from python_tests.faults import corpus
from python_tests.faults.child import HUNG, run
from python_tests.faults.mutations import mutated
from python_tests.faults.table import Row

SECONDS, MEBIBYTES = 5, 500
# What the readers document. TypeError, AttributeError, KeyError, ... are faults of theirs.
REFUSED = (ValueError, FileNotFoundError)
_EACH = 500  # files a child


class Hang(BaseException):
    """A file took longer than is allowed."""


def changed(
    folder: Path, files: int, dice: random.Random, formats: Sequence[str] = ()
) -> list[Row]:
    """A row for each format, or for some of them."""
    rows = []
    kinds = corpus.make(folder)
    share = sum(kind.share for kind in kinds)
    for kind in kinds:
        if formats and kind.name not in formats:
            continue
        row = Row(f"changed file: {kind.name}", "loads within 5 s of the processor and 500 MB")
        left = round(files * kind.share / share)
        while left > 0:
            some = min(left, _EACH)
            _child(kind, folder, some, dice.getrandbits(48), row)
            left -= some
        rows.append(row)
    return rows


def _child(kind: corpus.Kind, folder: Path, some: int, seed: int, row: Row) -> None:
    before = row.tried
    outcomes, kept = folder / "outcomes", folder / "last"
    outcomes.write_text("")
    ended = run(lambda: _try(kind, folder, some, seed, outcomes), folder / "log", processor=600)
    for line in outcomes.read_text().splitlines():
        row.count(*json.loads(line))
    if row.tried - before < some:  # the child died of the next one
        what = "hang" if ended.code == HUNG else f"exit {ended.code}"
        row.count("lost", f"seed {seed}: {what} {ended.output[-500:]}")
        if kept.exists():
            kept.rename(folder / f"{kind.name.replace(' ', '-')}-{seed}")


def _try(kind: corpus.Kind, folder: Path, some: int, seed: int, outcomes: Path) -> int:
    def hang(_: int, __: FrameType | None) -> None:
        raise Hang

    # Of the processor, since a busy machine makes others wait; on the wall for what waits for ever.
    signal.signal(signal.SIGPROF, hang)
    # A hang in C code, where no handler runs, ends the child.
    signal.signal(signal.SIGVTALRM, signal.SIG_DFL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    dice = random.Random(seed)
    base = _peak()
    with outcomes.open("a") as out:
        for _ in range(some):
            path = kind.place
            content = mutated(dice.choice(kind.contents), dice, text=kind.text)
            path.write_bytes(content)
            _timers(SECONDS, 2 * SECONDS, 60 * SECONDS)
            outcome, note = _outcome(kind.load)
            _timers(0, 0, 0)
            if _peak() - base > MEBIBYTES:
                outcome, note = "lost", f"{_peak() - base:.0f} MiB"
                base = _peak()
            if outcome == "lost":
                (folder / f"lost-{kind.name.replace(' ', '-')}-{time.time_ns()}").write_bytes(
                    content
                )
            out.write(json.dumps([outcome, note]) + "\n")
            out.flush()
    return 0


def _timers(handled: int, compiled: int, wall: int) -> None:
    signal.setitimer(signal.ITIMER_PROF, handled)
    signal.setitimer(signal.ITIMER_VIRTUAL, compiled)
    signal.alarm(wall)


def _outcome(load: Callable[[], Any]) -> tuple[str, str]:
    try:
        load()
    except REFUSED as error:
        return ("refused", "") if str(error) else ("lost", "an error without a message")
    except Hang:
        return "lost", f"hang: {traceback.format_exc()[-600:]}"
    except BaseException as error:
        return "lost", f"{type(error).__name__}: {traceback.format_exc()[-600:]}"
    return "survived", ""


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
