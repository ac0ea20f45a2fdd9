from __future__ import annotations

from pathlib import Path

import pytest
import torch

from repsim_fast.cli import threads

BEFORE = """\
cpu  300 0 0 300 0 0 0 0 0 0
cpu0 100 0 0 100 0 0 0 0 0 0
cpu1 100 0 0 100 0 0 0 0 0 0
cpu2 100 0 0 100 0 0 0 0 0 0
intr 12345 1 2 3
"""
# Core 0 worked all the time, core 1 idled, core 2 waited for a disk half of the time.
AFTER = """\
cpu  445 0 0 430 25 0 0 0 0 0
cpu0 200 0 0 100 0 0 0 0 0 0
cpu1 100 0 0 200 0 0 0 0 0 0
cpu2 150 0 0 100 50 0 0 0 0 0
intr 23456 1 2 3
"""


@pytest.mark.parametrize(
    ("cores", "idle"), [({0}, 0.0), ({1}, 1.0), ({0, 1, 2}, 1.5), ({1, 7}, 1.0), (set(), 0.0)]
)
def test_idle_cores_among_those_that_may_be_used(cores: set[int], idle: float) -> None:
    assert threads._idle_between(BEFORE, AFTER, cores) == idle


def test_reads_this_machine() -> None:
    assert 1 <= threads.idle_cores() <= 4096


@pytest.mark.parametrize("statistics", ["nowhere", "stat"])
def test_at_least_one_core(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, statistics: str
) -> None:
    (tmp_path / "stat").write_text(BEFORE)  # nothing moves between two readings: nothing is idle
    monkeypatch.setattr(threads, "_STATISTICS", tmp_path / statistics)
    assert threads.idle_cores() >= 1


@pytest.mark.parametrize(
    ("wanted", "idle", "variable", "used", "text"),
    [
        (None, 2, None, 2, "2 threads used of 4 (--threads N changes it)"),
        (None, 1, None, 1, "1 thread used of 4 (--threads N changes it)"),
        (None, 9, None, 4, "4 threads used"),
        (None, 1, "4", 4, "4 threads used"),
        (3, 1, None, 3, "3 threads used of 4 (--threads N changes it)"),
        (6, 1, None, 6, "6 threads used"),
    ],
)
def test_choice(
    monkeypatch: pytest.MonkeyPatch,
    wanted: int | None,
    idle: int,
    variable: str | None,
    used: int,
    text: str,
) -> None:
    torch.set_num_threads(4)
    monkeypatch.setattr(threads, "idle_cores", lambda: idle)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if variable is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", variable)
    assert threads.choose_threads(wanted) == text
    assert torch.get_num_threads() == used
