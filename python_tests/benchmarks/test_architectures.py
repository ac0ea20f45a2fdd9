"""The table of architectures: its page is of its results, and the script sees what is wrong."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.architectures import case, run
from docs.update_architectures import EQUAL, PAGE, RESULTS, updated

FEW = ("torch: nn.GRU, time first", "torch: nn.Transformer", "wrapped: perceptron, checkpointed")


def cases() -> list[tuple[str, case.Case]]:
    return [(g, c) for g, c in run.all_cases() if f"{g}: {c.name}" in FEW]


def rows(monkeypatch: pytest.MonkeyPatch, out: Path, *options: str) -> list[dict[str, Any]]:
    found = cases()
    monkeypatch.setattr(run, "all_cases", lambda: found)
    monkeypatch.setattr(sys, "argv", ["run", "--out", str(out), *options])
    run.main()
    held: list[dict[str, Any]] = json.loads(out.read_text())["rows"]
    return held


def test_the_page_is_that_of_the_results() -> None:
    page = PAGE.read_text()
    assert updated(page) == page


def test_results_are_equal_and_failures_known() -> None:
    held = json.loads(RESULTS.read_text())["rows"]
    ran = [row for row in held if "max_error" in row]
    assert len(ran) >= 60
    assert [row["case"] for row in held if "failed" in row] == ["graphs: SchNet, molecules"]
    # Of random images wide layers make rows at right angles: Grams have values in last digits.
    beyond = {row["name"]: row["max_error"] for row in ran if row["max_error"] > EQUAL}
    assert set(beyond) <= {"maxvit_t", "video.r2plus1d_18", "optical_flow.raft_small"}
    assert all(error < 20 * EQUAL for error in beyond.values())


def test_a_few_are_compared_and_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = rows(monkeypatch, tmp_path / "few.json")
    assert [row["case"] for row in found] == list(FEW)
    assert all(row["max_error"] < EQUAL and row["ratio_to_forwards"] > 0 for row in found)


def test_wrong_values_are_seen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    right = run.oracle.first

    def shifted(output: Any) -> torch.Tensor | None:
        x = right(output)
        return None if x is None else x + 0.1 * x**2

    monkeypatch.setattr(run.oracle, "first", shifted)
    assert all(
        row["max_error"] > EQUAL for row in rows(monkeypatch, tmp_path / "few.json", "--no-times")
    )


def test_what_is_absent_or_fails_does_not_count_as_working(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken() -> torch.nn.Module:
        raise RuntimeError("no such network")

    made = [
        ("wrapped", case.Case("absent", "no_such_package", broken, case.numbers(3))),
        ("wrapped", case.Case("broken", "torch", broken, case.numbers(3))),
    ]
    monkeypatch.setattr(f"{__name__}.cases", lambda: made)
    absent, failed = rows(monkeypatch, tmp_path / "none.json", "--no-times")
    assert absent["not_run"] == "no_such_package is not installed"
    assert failed["failed"] == "RuntimeError: no such network"
    assert "max_error" not in absent
    assert "max_error" not in failed
