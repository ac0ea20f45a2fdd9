"""Two processes at one comparison: one is killed, the other ends, and the next start goes on."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

from python_tests.faults import counting
from python_tests.faults.child import Child, Ended
from python_tests.faults.counting import BATCH_SIZE, Counting
from python_tests.faults.table import Row
from repsim_fast import SimilarityResult, compare, compare_zoo
from repsim_fast._core.tensor_files import read_metadata
from repsim_fast.comparison.recording_files import unfinished_parts

SIZE = 2
_SECONDS = 10  # from the kill to the end of the others
_EVERY, _BATCHES, _MODELS = 2, 12, 4

Shared = Callable[[Any, Path], SimilarityResult]
"""From the group of processes and a folder for what is kept to a result."""


def _data() -> torch.Tensor:
    return torch.rand(_BATCHES * BATCH_SIZE, 64, generator=torch.Generator().manual_seed(0))


def _model(seed: int) -> Counting:
    torch.manual_seed(seed)
    return Counting()


def zoo(folder: Path, kills: int, dice: random.Random) -> Row:
    def work(group: Any, kept: Path) -> SimilarityResult:
        models = {f"m{seed}": lambda seed=seed: _model(seed) for seed in range(_MODELS)}
        options: dict[str, Any] = {"batch_size": BATCH_SIZE, "every": _EVERY}
        return compare_zoo(models, _data(), kept, process_group=group, **options)

    def batches(kept: Path) -> int:
        return sum(len(p["batches"]) for path in kept.glob("*/") for p in unfinished_parts(path))

    row = Row(
        "kill one of two processes at a zoo",
        f"the other ends within {_SECONDS} s, the next start goes on; the same bits in the end",
    )
    return _killed(row, work, batches, _MODELS * _BATCHES, folder, kills, dice)


def comparison(folder: Path, kills: int, dice: random.Random) -> Row:
    def work(group: Any, kept: Path) -> SimilarityResult:
        models, options = [_model(0), _model(1)], {"batch_size": BATCH_SIZE, "every": _EVERY}
        return compare(models, _data(), process_group=group, resume=kept, **options)  # type: ignore[call-overload,no-any-return]

    def batches(kept: Path) -> int:
        headers = [json.loads(read_metadata(path)["sums"]) for path in kept.glob("sums*")]
        return 2 * sum(len(header["batches"]) for header in headers)

    row = Row(
        "kill one of two processes at a comparison",
        f"the other ends within {_SECONDS} s, the next start goes on; the same bits in the end",
    )
    return _killed(row, work, batches, 2 * _BATCHES, folder, kills, dice)


def _killed(
    row: Row,
    work: Shared,
    batches: Callable[[Path], int],
    total: int,
    folder: Path,
    kills: int,
    dice: random.Random,
) -> Row:
    """Try it so many times.

    Args:
        row: Counts.
        work: Of each process.
        batches: How many are kept in a folder.
        total: Forward passes of batches of a whole run.
        folder: For everything.
        kills: How many.
        dice: When, and whom.
    """
    passed, kept = folder / "passed", folder / "kept"
    os.environ[counting.PASSED] = str(passed)
    whole, seconds = _pair(work, folder / "whole", folder)
    assert [one.code for one in whole] == [0, 0], whole
    expected = SimilarityResult.load(folder / "0.safetensors")
    for _ in range(kills):
        shutil.rmtree(kept, ignore_errors=True)
        kill = dice.randrange(SIZE), dice.uniform(0, seconds)
        ended, left = _pair(work, kept, folder, kill=kill)
        fault = _end(ended, kill[0], left)
        before = batches(kept)
        passed.write_bytes(b"")
        again, _ = _pair(work, kept, folder)
        # Whoever goes on runs batches once more to see what they are of: of a zoo the first one of
        # each model, and the last one if it is finished, else two in each process.
        ran = len(passed.read_bytes())
        if any(one.code for one in again):
            fault = fault or f"the next start: {again}"
        elif ran > total - before + 2 * _MODELS:
            fault = fault or f"{before} of {total} batches kept, {ran} run by the next start"
        else:
            for rank in range(SIZE):
                found = SimilarityResult.load(folder / f"{rank}.safetensors")
                if not np.array_equal(found.value, expected.value):
                    fault = fault or f"other bits in process {rank}"
        row.count("lost" if fault else "survived", fault)
    return row


def _end(ended: list[Ended], killed: int, seconds: float) -> str:
    """What is wrong with the end of both after the kill."""
    other = ended[1 - killed]
    if ended[killed].code == 0 or other.code == 0:
        return ""  # it came too late to be noticed
    if seconds > _SECONDS:
        return f"{seconds:.1f} s after the kill: {other.output[-300:]}"
    if "one was killed" not in other.output:
        return f"no message: {other.code} {other.output[-500:]}"
    return ""


def _pair(
    work: Shared, kept: Path, folder: Path, *, kill: tuple[int, float] | None = None
) -> tuple[list[Ended], float]:
    """How both end, and the seconds since they met, or since one was killed.

    Args:
        work: Of each.
        kept: Their common folder.
        folder: For their results by rank, and what they print.
        kill: Who is killed, how many seconds after both have met.
    """
    (folder / "meeting").unlink(missing_ok=True)
    children = [
        Child(lambda rank=rank: _work(work, rank, kept, folder), folder / f"log{rank}")  # type: ignore[misc]
        for rank in range(SIZE)
    ]
    while not all("met" in child.output or child.ended() for child in children):
        time.sleep(0.001)
    since = time.monotonic()
    if kill is not None:
        time.sleep(kill[1])
        since = time.monotonic()
        children[kill[0]].send(signal.SIGKILL)
    while not all(child.ended() for child in children):
        if time.monotonic() - since > 60:
            return [child.hung() for child in children], 60.0
        time.sleep(0.001)
    return [child.hung() for child in children], time.monotonic() - since


def _work(work: Shared, rank: int, kept: Path, folder: Path) -> int:
    warnings.simplefilter("ignore")
    dist.init_process_group(
        "gloo",
        init_method=f"file://{folder}/meeting",
        rank=rank,
        world_size=SIZE,
        timeout=timedelta(seconds=50),
    )
    print("met", flush=True)
    work(dist.group.WORLD, kept).save(folder / f"{rank}.safetensors")
    return 0
