"""The benchmark of bounds checks before it times, and its results file is of all methods."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import nn

from benchmarks import verified_bounds
from benchmarks.timing import Timing
from repsim_fast.verification import Traced


def run(monkeypatch: pytest.MonkeyPatch, out: Path) -> dict[str, Any]:
    few = ["--images", "2", "3", "--rounds", "1", "--side", "8", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", ["verified_bounds", *few])
    assert verified_bounds.main() == 0
    return json.loads(out.read_text())


def test_every_method_is_measured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    rows = run(monkeypatch, tmp_path / "bounds.json")["rows"]
    methods = verified_bounds.METHODS
    cases = [f"CNN-small, {n} images, {method}" for n in (2, 3) for method in methods]
    assert [row["case"] for row in rows] == cases
    assert all(0 < row["largest_allowance_for_rounding"] < 0.01 for row in rows)
    held = json.loads(verified_bounds.OUT.read_text())["rows"]
    assert {row["case"].split(", ")[2] for row in held} == set(methods)


def test_a_model_is_traced_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: dict[str, set[type]] = {}
    bounds = verified_bounds.margin_bounds

    def timed(alternatives: dict[str, Any], **options: Any) -> dict[str, Timing]:
        for name, alternative in alternatives.items():
            called = Mock(wraps=bounds)
            with monkeypatch.context() as patched:
                patched.setattr(verified_bounds, "margin_bounds", called)
                alternative()
            given.setdefault(name, set()).update(type(call.args[0]) for call in called.mock_calls)
        return dict.fromkeys(alternatives, Timing(1.0, 1.0, 1.0))

    monkeypatch.setattr(verified_bounds, "side_by_side", timed)
    run(monkeypatch, tmp_path / "bounds.json")
    assert given == {
        "loop": set(),
        "ours": {Traced},
        "ours, not rounded": {Traced},
        "ours, traced in each call": {nn.Sequential},
    }


def test_bounds_that_differ_are_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ours = verified_bounds.ours

    def wrong(*args: Any, **kwargs: Any) -> torch.Tensor:
        return ours(*args, **kwargs) + 1e-6

    monkeypatch.setattr(verified_bounds, "ours", wrong)
    with pytest.raises(AssertionError):
        run(monkeypatch, tmp_path / "bounds.json")
    assert not (tmp_path / "bounds.json").exists()
