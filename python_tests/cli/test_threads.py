from __future__ import annotations

import os
import time
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


def test_where_the_system_does_not_tell(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(threads, "_STATISTICS", tmp_path / "nowhere")
    assert threads._Reading.now() is None
    assert threads.idle_cores() == os.cpu_count()


def test_what_was_long_ago_is_read_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "stat").write_text(AFTER)
    monkeypatch.setattr(threads, "_STATISTICS", tmp_path / "stat")
    begin = threads._Reading(time.perf_counter() - 3600, time.process_time(), BEFORE)
    monkeypatch.setattr(threads, "_BEGIN", begin)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 2}, raising=False)
    assert threads.idle_cores() == 1  # since then nothing moves; since the hour before two were


@pytest.mark.parametrize(
    ("cores", "own", "idle"),
    [
        ({1, 2}, 0.0, 2),  # 1.5 of them idle
        ({0, 1}, 0.0, 1),
        ({0, 1}, 5.0, 2),  # core 0 did the process's own work
        ({0}, 1.0, 1),
        ({0, 1}, 50.0, 2),
    ],
)
def test_what_the_process_used_itself_is_idle(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cores: set[int], own: float, idle: int
) -> None:
    (tmp_path / "stat").write_text(AFTER)
    monkeypatch.setattr(threads, "_STATISTICS", tmp_path / "stat")
    begin = threads._Reading(time.perf_counter() - 5, time.process_time() - own, BEFORE)
    monkeypatch.setattr(threads, "_BEGIN", begin)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    assert threads.idle_cores() == idle


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
