"""The benchmark of bounds checks before it times, and its results file is of all methods."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import verified_bounds


def run(monkeypatch: pytest.MonkeyPatch, out: Path) -> dict[str, Any]:
    few = ["--images", "2", "--rounds", "1", "--side", "8", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["verified_bounds", *few])
    assert verified_bounds.main() == 0
    return json.loads(out.read_text())


def test_every_method_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = run(monkeypatch, tmp_path / "bounds.json")["rows"]
    cases = [f"CNN-small, 2 images, {method}" for method in verified_bounds.METHODS]
    assert [row["case"] for row in rows] == cases
    assert all(0 < row["largest_allowance_for_rounding"] < 0.01 for row in rows)
    held = json.loads(verified_bounds.OUT.read_text())["rows"]
    assert [row["case"].split(", ")[2] for row in held] == list(verified_bounds.METHODS)


def test_bounds_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = verified_bounds.ours

    def wrong(*args: Any, **kwargs: Any) -> torch.Tensor:
        return ours(*args, **kwargs) + 1e-6

    monkeypatch.setattr(verified_bounds, "ours", wrong)
    with pytest.raises(AssertionError):
        run(monkeypatch, tmp_path / "bounds.json")
    assert not (tmp_path / "bounds.json").exists()
