from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from python_tests.support.commands import Run
from repsim_fast import SimilarityResult
from repsim_fast.cli.demo_run import NOTEWORTHY, _compared, run_demo
from repsim_fast.models import load_checkpoint


def test_robust_network_holds_where_the_standard_one_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shorter training than the command's, on half of the digits, by fewer steps."""
    monkeypatch.setattr("repsim_fast.cli.demo_run.TRAIN_STEPS", 5)
    lines: list[str] = []
    threads = torch.get_num_threads()
    found = run_demo(tmp_path, epochs=8, limit=600, say=lines.append)
    standard, robust = found.accuracy["standard"], found.accuracy["robust"]
    assert standard.clean > 0.95
    assert robust.clean > 0.9
    assert standard.robust < 0.15
    assert robust.robust > 0.3
    within, within_robust, between = (grid.mean_off_diagonal() for grid in found.result.grids())
    assert between < within < within_robust < 1
    assert torch.get_num_threads() == threads
    assert len(lines) == 4

    report = found.report.read_text(encoding="utf-8")
    for figure in (standard.robust, robust.robust):
        assert f"{figure:.1%}" in report
    for grid in found.result.grids():
        assert str(grid.mean_with_error()) in report
    assert not re.search(r' (src|srcset|href)="(?!#)', report.partition("<script")[0])
    assert (tmp_path / "heatmaps.png").stat().st_size > 10_000
    for name in ("standard", "robust"):
        assert load_checkpoint(tmp_path / f"{name}.safetensors")[1]["epochs"] == 8


def test_command_prints_the_table(run: Run, tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path, "--epochs", 1, "--limit", 150)
    assert result.exit_code == 0, result.output
    found = SimilarityResult.load(tmp_path / "result.safetensors")
    for grid in found.grids():
        assert grid.title in result.output
        mean = grid.mean_with_error()
        for figure in (mean.value, mean.standard_error):
            assert f"{figure:.3f}" in result.output
    assert "under attack" in result.output
    assert str(tmp_path / "report.html") in result.output


def test_same_seed_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repsim_fast.cli.demo_run.write_folder", lambda folder, *_, **__: folder)
    monkeypatch.setattr("repsim_fast.cli.demo_run.TEST_STEPS", 2)
    first, again, other = (
        run_demo(tmp_path, epochs=1, limit=70, seed=seed).result.value for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize(
    ("difference", "error", "verdict"),
    [(0.1, 0.01, 1), (-0.1, 0.01, -1), (0.1, 0.1, 0), (0.0, 0.0, 0), (0.1, np.nan, 0)],
)
def test_differences_within_their_errors_are_none(
    difference: float, error: float, verdict: int
) -> None:
    assert NOTEWORTHY >= 2
    assert _compared(two_models(difference, error), 1, 0) == verdict


def test_what_both_grids_share_is_no_error_of_their_difference() -> None:
    together = two_models(0.1, 0.01, shared=0.5)
    assert together.between(0, 0).mean_with_error().standard_error == pytest.approx(0.5)
    assert _compared(together, 1, 0) == 1


def two_models(difference: float, error: float, shared: float = 0.0) -> SimilarityResult:
    """Two models whose mean similarities differ, with the standard error of the difference."""
    value = np.full((6, 6), 0.5)
    value[3:, 3:] += difference
    # Of two groups: values that are the error away to either side have it as standard error.
    left_out = np.stack([value, value])
    left_out += shared * np.array([1.0, -1.0])[:, None, None]
    left_out[:, 3:, 3:] += error * np.array([1.0, -1.0])[:, None, None]
    layers = (("x", "y", "z"),) * 2
    known = {} if np.isnan(error) else {"left_out": left_out, "group_samples": (8, 8)}
    unknown = np.full_like(value, np.nan)
    return SimilarityResult(("a", "b"), layers, value, unknown, "cka", "unbiased", 16, 2, **known)
