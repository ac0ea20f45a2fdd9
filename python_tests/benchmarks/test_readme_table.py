"""The README claims what the results files say."""

from __future__ import annotations

import runpy
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "readme_table.py"


def test_speeds_in_the_readme_are_those_of_the_results_files() -> None:
    script = runpy.run_path(str(SCRIPT))
    readme = script["README"].read_text()
    assert script["BEGIN"] in readme
    assert script["written"](readme) == readme


def test_speeds_of_training_are_those_of_the_results_files() -> None:
    script = runpy.run_path(str(SCRIPT))
    readme = script["OF_TRAINING"].read_text()
    assert script["BEGIN"] in readme
    assert script["written"](readme, script["training_table"]()) == readme


def test_speeds_of_many_models_are_those_of_the_results_files() -> None:
    script = runpy.run_path(str(SCRIPT))
    readme = script["OF_TRAINING"].read_text()
    assert script["BEGIN_MODELS"] in readme
    assert script["written"](readme, script["models_table"](), script["BEGIN_MODELS"]) == readme


def test_speeds_in_mixed_precision_are_those_of_the_results_files() -> None:
    script = runpy.run_path(str(SCRIPT))
    readme = script["OF_TRAINING"].read_text()
    assert script["BEGIN_MIXED"] in readme
    assert script["written"](readme, script["mixed_table"](), script["BEGIN_MIXED"]) == readme


def test_robust_images_under_l1_attacks_are_those_of_the_results_file() -> None:
    script = runpy.run_path(str(SCRIPT))
    readme = script["OF_TRAINING"].read_text()
    assert script["BEGIN_L1"] in readme
    assert script["written"](readme, script["l1_table"](), script["BEGIN_L1"]) == readme
