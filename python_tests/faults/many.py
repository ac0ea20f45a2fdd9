"""Many at once and many in turn: eight threads, forked processes, thousands of comparisons."""

from __future__ import annotations

import gc
import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from python_tests.faults.child import run
from python_tests.faults.table import Row
from repsim_fast import compare
from repsim_fast.attacks import PGD

THREADS = 8
# What 2,000 comparisons may leave behind, in MiB: 10 kB each would be a leak.
LEAK = 20


def _network() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 16), nn.Dropout(0.5), nn.ReLU(), nn.Linear(16, 3))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return network


def _images(rows: int) -> torch.Tensor:
    return torch.rand(rows, 12, generator=torch.Generator().manual_seed(1))


def threads(folder: Path, rounds: int, dice: random.Random) -> Row:
    """Comparisons and attacks of one model in eight threads, each against its own of one."""
    row = Row("eight threads on one model", "the bits of one thread; model and process as before")
    shared, images = _network(), _images(40)
    labels = torch.arange(40) % 3

    def work(number: int) -> torch.Tensor:
        if number % 2:
            return PGD(0.1, steps=3, seed=number, model_mode="train")(shared, images, labels)
        return torch.from_numpy(compare(shared, shared, images, batch_size=8, seed=number).value)

    alone = [work(number) for number in range(THREADS)]
    state, fast = torch.get_rng_state(), torch.backends.mha.get_fastpath_enabled()
    with ThreadPoolExecutor(THREADS) as pool:
        for _ in range(rounds):
            order = dice.sample(range(THREADS), THREADS)
            for number, got in zip(order, pool.map(work, order), strict=True):
                same = torch.equal(got, alone[number])
                row.count("survived" if same else "lost", f"thread {number}: other bits")
    left = [
        torch.equal(torch.get_rng_state(), state),
        torch.backends.mha.get_fastpath_enabled() == fast,
        all(module.training for module in shared.modules()),
    ]
    if not all(left):
        row.count("lost", f"random state, fast path, modes as before: {left}")
    return row


def forks(folder: Path, tries: int, dice: random.Random) -> Row:
    """Forked in the middle of another thread's comparison, the child compares, too."""
    row = Row("fork during a comparison", "the child's own comparison has the bits of the parent's")
    shared, images = _network(), _images(40)

    def work() -> torch.Tensor:
        return torch.from_numpy(compare(shared, shared, images, batch_size=8).value)

    expected = work()
    over = threading.Event()

    def on() -> None:
        while not over.is_set():
            work()

    thread = threading.Thread(target=on)
    thread.start()
    try:
        for _ in range(tries):
            over.wait(dice.uniform(0, 0.02))
            child: Callable[[], int] = lambda: int(not torch.equal(work(), expected))  # noqa: E731
            ended = run(child, folder / "log", processor=30, limit=300)
            fault = "" if ended.code == 0 else f"exit {ended.code}: {ended.output[-400:]}"
            row.count("lost" if fault else "survived", fault)
    finally:
        over.set()
        thread.join()
    return row


def leak(folder: Path, comparisons: int, dice: random.Random) -> Row:
    row = Row("comparisons in one process", f"at most {LEAK} MiB more memory after all of them")
    images = _images(40)

    def once(number: int) -> Any:
        options: dict[str, Any] = {"batch_size": 8} if number % 2 else {"measure": "cca"}
        return compare(_network(), _network(), images, **options)

    for number in range(100):  # pools and caches fill
        once(number)
    gc.collect()
    before = _resident()
    for number in range(comparisons):
        once(number)
    gc.collect()
    grown = _resident() - before
    row.survived = comparisons
    if grown > LEAK:
        row.survived, row.lost = 0, comparisons
        row.notes.append(f"{grown:.1f} MiB more")
    return row


def _resident() -> float:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096 / 2**20
