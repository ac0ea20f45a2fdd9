"""Networks trained and measured by several processes at the same time, each on its share of the
cores."""

from __future__ import annotations

import multiprocessing
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing import connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import torch

from .lab import Lab
from .networks import OutOfTime
from .presets import Preset
from .recipes import Recipe

_LATE = 75

Measure = Callable[[Any, Any], object]
"""(lab, recipe), see ``Question``."""


def train(
    build: Callable[..., Lab[Any, Any]],
    preset: Preset,
    work: Path,
    asked: Mapping[Recipe, Sequence[Measure]],
    *,
    processes: int,
    cards: Path | None = None,
    deadline: float | None,
) -> None:
    """Train and measure what is not done; a network is the work of one process.

    Args:
        build: Class of the lab.
        asked: The networks, each with what is measured of it.
        cards: See ``Networks``.
        deadline: ``time.monotonic()`` after which no epoch ends.

    Raises:
        OutOfTime: There is more to train.
        RuntimeError: A training failed; the others are stopped, and go on with the next call.
    """
    # Forked from a fresh process: a fork of this one would take over the locks of torch's threads.
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["numpy", "torch"])
    threads = max(1, torch.get_num_threads() // processes)
    work_of_one = (build, preset, work, dict(asked), cards, deadline, threads)
    workers = [context.Process(target=_share, args=work_of_one) for _ in range(processes)]
    try:
        for worker in workers:
            worker.start()
        _wait(workers)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
                worker.join()


def _wait(workers: Sequence[BaseProcess]) -> None:
    """For all of them, or for the first that fails: what is left fails or waits for a repair."""
    running = {worker.sentinel: worker for worker in workers}
    late = False
    while running:
        for ended in connection.wait(list(running)):
            worker = running.pop(cast(int, ended))
            worker.join()
            if worker.exitcode not in (0, _LATE):
                raise RuntimeError(
                    f"a process that trained networks ended with status {worker.exitcode}"
                )
            late |= worker.exitcode == _LATE
    if late:
        raise OutOfTime("stopped before all networks were trained")


def _share(
    build: Callable[..., Lab[Any, Any]],
    preset: Preset,
    work: Path,
    asked: Mapping[Recipe, Sequence[Measure]],
    cards: Path | None,
    deadline: float | None,
    threads: int,
) -> None:
    torch.set_num_threads(threads)
    lab = build(preset, work, cards=cards, deadline=deadline, progress=False)
    began = time.monotonic()

    def measure(recipe: Recipe) -> None:
        for one in asked.get(recipe, ()):
            one(lab, recipe)

    try:
        lab.networks.share(asked, measure)
    except (OutOfTime, KeyboardInterrupt) as stop:
        print(f"{str(stop) or 'interrupted'} ({time.monotonic() - began:.0f} s)", flush=True)
        sys.exit(_LATE)
