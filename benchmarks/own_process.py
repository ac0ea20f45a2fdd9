"""A function that runs in a process of its own, and is called and timed from here.

What a program's C library has been told, and what it has in its caches and heap, is the whole
process's: a loop timed beside `compare` or the trainer is not the loop of a script without them.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import torch
from timing import Elapsed

Clock = Callable[[], float]


@contextmanager
def in_own_process(
    make: Callable[..., Callable[[], Any]], *args: Any, clock: Clock = perf_counter
) -> Iterator[Callable[[], Elapsed]]:
    """A function that has another process call what ``make(*args)`` returned there, and waits.

    Args:
        make: Found by its name there, as what is pickled is.
        args: Handed over; what the function returns stays where it is.
        clock: The time is that of its seconds there.

    The process has as many threads as this one, and sleeps in between.

    Raises:
        RuntimeError: An error in that process, which has printed it.
    """
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(there, torch.get_num_threads(), make, args, clock), daemon=True
    )
    process.start()
    there.close()

    def answer() -> Any:
        try:
            return here.recv()
        except EOFError:
            raise RuntimeError(f"{make.__name__} failed in its own process") from None

    def call() -> Elapsed:
        here.send(None)
        return Elapsed(answer())

    try:
        answer()  # made
        yield call
    finally:
        here.close()
        process.join()


def _serve(
    there: Connection,
    threads: int,
    make: Callable[..., Callable[[], Any]],
    args: tuple[Any, ...],
    clock: Clock,
) -> None:
    torch.set_num_threads(threads)
    function = make(*args)
    there.send(None)
    while True:
        try:
            there.recv()
        except EOFError:
            return
        start = clock()
        function()
        there.send(clock() - start)
