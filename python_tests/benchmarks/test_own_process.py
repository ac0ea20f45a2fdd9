"""What benchmarks time in another process runs there, by a clock of its own."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


def writing(where: str) -> Callable[[], None]:
    """Writes the number of the process at each call."""
    path = Path(where)

    def call() -> None:
        with path.open("a") as file:
            file.write(f"{os.getpid()}\n")

    return call


def failing() -> Callable[[], None]:
    raise ValueError("no function")


def test_calls_run_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    from own_process import in_own_process
    from timing import Elapsed, side_by_side

    written = tmp_path / "calls"
    with in_own_process(writing, str(written), clock=time.process_time) as call:
        taken = call()
        assert isinstance(taken, Elapsed)
        assert 0 <= taken < 1

        def slow() -> Elapsed:
            time.sleep(0.05)
            return taken

        assert side_by_side({"it": slow}, rounds=3, warmup=1)["it"].median == taken
        call()
    first, second = written.read_text().split()
    assert first == second != str(os.getpid())


def test_errors_there_are_errors_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    from own_process import in_own_process

    with (
        pytest.raises(RuntimeError, match="failing failed in its own process"),
        in_own_process(failing),
    ):
        pass
