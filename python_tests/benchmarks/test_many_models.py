"""Operations beside the times of many models are those of a case that is known."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

FOLDER = Path(__file__).parents[2] / "benchmarks"


def test_operations_of_layers_that_share_tensors(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    monkeypatch.setattr(sys, "path", [str(FOLDER), *sys.path])
    script = runpy.run_path(str(FOLDER / "test_many_models.py"))
    # The ReLU changes what the linear layer returned; the last layer returns it once more.
    model = nn.Sequential(nn.Linear(3, 5), nn.ReLU(inplace=True), nn.Identity())
    grams, forward = script["operations"](model, ("0", "1", "2"), torch.rand(1, 3))
    n = script["BATCH"]
    assert grams == (5 + 5) * n * (n + 1)
    assert forward == 2 * 3 * 5 * n
