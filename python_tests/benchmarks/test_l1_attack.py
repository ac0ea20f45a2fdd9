"""The count of L1-APGD beside its authors' attack: what it adds up, and what it refuses."""

from __future__ import annotations

import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks import l1_attack


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> int:
    out = ["--out", str(tmp_path / "out.json"), "--work", str(tmp_path / "work")]
    monkeypatch.setattr(sys, "argv", ["l1_attack", "--data", "digits", "--steps", "3", *out])
    return l1_attack.main()


def test_without_the_authors_attack_there_is_no_table(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(l1_attack, "version", missing)
    with pytest.raises(SystemExit, match="pyautoattack is not installed: pip install"):
        run(monkeypatch, tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("weaker", [False, True])
def test_says_which_is_stronger(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, weaker: bool, capsys: Any
) -> None:
    def nothing(eps: float, steps: int, seed: int) -> l1_attack.Attack:
        return lambda model, x, y: x

    kind = l1_attack.Kind("digits", "standard", (2.0,), {}, 1, 2, 1)
    monkeypatch.setattr(l1_attack, "KINDS", (kind,))
    monkeypatch.setattr(l1_attack, "IMAGES", 40)
    monkeypatch.setattr(l1_attack, "version", lambda name: "1")
    monkeypatch.setattr(l1_attack, "theirs", nothing)
    if weaker:
        monkeypatch.setattr(l1_attack, "theirs", l1_attack.ours)
        monkeypatch.setattr(l1_attack, "ours", nothing)
    assert run(monkeypatch, tmp_path) == int(weaker)
    assert "   80 images" in capsys.readouterr().out
    assert (tmp_path / "out.json").exists()


def test_an_attack_that_leaves_the_ball_does_not_count() -> None:
    x, y = torch.zeros(2, 1, 2, 2), torch.zeros(2, dtype=torch.int64)

    def far(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        return x + 0.5

    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(AssertionError, match="left the ball or the box"):
        l1_attack.robust(net, x, y, 1.0, far)
