"""The textbook loops of the training benchmark are what the trainer does."""

from __future__ import annotations

import runpy
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from repsim_fast import models

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_speed.py"


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize("method", ["pgd", "trades", "n-fgsm"])
def test_first_losses(script: dict, method: str) -> None:
    errors = script["check"](script["CASES"][method])  # exits where one is too large
    assert set(errors) == {"first_loss_error_float64", "first_loss_error_bfloat16"}


def test_a_check_of_float32_alone(script: dict) -> None:
    errors = script["check"](script["CASES"]["n-fgsm"], ["float32"])
    assert set(errors) == {"first_loss_error_float64"}


def test_convolutions_alone(script: dict) -> None:
    net = models.build("wrn-10-1", num_classes=10, seed=0)
    passes = script["Passes"](attacking=2, training=1)
    batch = script["convolutions_alone"](net, torch.rand(2, 3, 8, 8), passes, torch.float64)
    with CallCounts() as counts:
        batch()
    layers = sum(isinstance(module, torch.nn.Conv2d) for module in net.modules())
    assert counts.of == {"convolution": 3 * layers, "convolution_backward": 3 * layers}


class CallCounts(TorchDispatchMode):
    """How often each operator is called."""

    def __init__(self) -> None:
        super().__init__()
        self.of: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.of[func.overloadpacket.__name__] += 1
        return func(*args, **(kwargs or {}))


def test_accuracies_that_differ_are_refused(script: dict) -> None:
    case = script["CASES"]["pgd"]
    alike = {"clean": [0.30, 0.31, 0.32], "robust": [0.2, 0.21, 0.19]}
    ways = dict.fromkeys(("textbook", "float32", "bfloat16"), alike)
    script["check_accuracies"](case, ways)
    worse = {**alike, "robust": [0.1, 0.1, 0.1]}
    with pytest.raises(SystemExit, match="pgd, bfloat16: robust accuracies"):
        script["check_accuracies"](case, {**ways, "bfloat16": worse})
