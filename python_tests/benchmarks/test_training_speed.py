"""The textbook loops of the training benchmark are what the trainer does."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training_speed.py"


@pytest.fixture(scope="module")
def script() -> dict:
    return runpy.run_path(str(SCRIPT))


@pytest.mark.parametrize("method", ["pgd", "trades", "n-fgsm"])
def test_first_losses(script: dict, method: str) -> None:
    errors = script["check"](script["CASES"][method])  # exits where one is too large
    assert set(errors) == {"first_loss_error_float64", "first_loss_error_bfloat16"}


def test_accuracies_that_differ_are_refused(script: dict) -> None:
    case = script["CASES"]["pgd"]
    alike = {"clean": [0.30, 0.31, 0.32], "robust": [0.2, 0.21, 0.19]}
    ways = dict.fromkeys(("textbook", "float32", "bfloat16"), alike)
    script["check_accuracies"](case, ways)
    worse = {**alike, "robust": [0.1, 0.1, 0.1]}
    with pytest.raises(SystemExit, match="pgd, bfloat16: robust accuracies"):
        script["check_accuracies"](case, {**ways, "bfloat16": worse})
