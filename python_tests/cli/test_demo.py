from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from python_tests.support.commands import Run
from repsim_fast import SimilarityResult
from repsim_fast.cli.demo_run import NOTEWORTHY, _compared, run_demo
from repsim_fast.comparison.result import Grid
from repsim_fast.models import load_checkpoint
from repsim_fast.report.folder import mean_error


def test_robust_network_holds_where_the_standard_one_fails(tmp_path: Path) -> None:
    """A shorter training than the command's, on all digits."""
    lines: list[str] = []
    threads = torch.get_num_threads()
    found = run_demo(tmp_path, epochs=10, say=lines.append)
    standard, robust = found.accuracy["standard"], found.accuracy["robust"]
    assert standard.clean > 0.95
    assert robust.clean > 0.9
    assert standard.robust < 0.15
    assert robust.robust > 0.4
    within, within_robust, between = (grid.mean_off_diagonal() for grid in found.result.grids())
    assert between < within < within_robust < 1
    assert torch.get_num_threads() == threads
    assert len(lines) == 4

    report = found.report.read_text(encoding="utf-8")
    for figure in (standard.robust, robust.robust):
        assert f"{figure:.1%}" in report
    for grid in found.result.grids():
        assert f"{grid.mean_off_diagonal():.3f} ± {mean_error(grid):.3f}" in report
    assert not re.search(r'(src|srcset|href)="(?!data:)|<script', report)  # self-contained
    for name in ("heatmaps.png", "cka-standard.png", "cka-robust.png", "cka-standard-robust.png"):
        assert (tmp_path / name).stat().st_size > 10_000
    for name in ("standard", "robust"):
        assert load_checkpoint(tmp_path / f"{name}.safetensors")[1]["epochs"] == 10


def test_command_prints_the_table(run: Run, tmp_path: Path) -> None:
    result = run("demo", "--out", tmp_path, "--epochs", 1, "--limit", 150)
    assert result.exit_code == 0, result.output
    found = SimilarityResult.load(tmp_path / "result.safetensors")
    for grid in found.grids():
        assert grid.title in result.output
        assert f"{grid.mean_off_diagonal():.3f}" in result.output
        assert f"{mean_error(grid):.3f}" in result.output
    assert "under attack" in result.output
    assert str(tmp_path / "report.html") in result.output


def test_same_seed_same_result(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("repsim_fast.cli.demo_run.write_folder", lambda folder, *_, **__: folder)
    first, again, other = (
        run_demo(tmp_path, epochs=1, limit=70, seed=seed).result.value for seed in (0, 0, 1)
    )
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_error_of_a_mean_is_never_understated() -> None:
    """Jackknife of the mean itself, against the mean of the cells' jackknives."""
    rng = np.random.default_rng(0)
    n, size = 12, 5
    shared = rng.normal(size=(n, 1, 1))
    for weight in (0.0, 0.5, 1.0):
        left_out = 0.5 + weight * shared + (1 - weight) * rng.normal(size=(n, size, size))
        off_diagonal = ~np.eye(size, dtype=bool)
        errors = np.sqrt((n - 1) * left_out.var(axis=0))
        exact = np.sqrt((n - 1) * left_out[:, off_diagonal].mean(axis=1).var())
        bound = mean_error(a_grid(0.5, errors))
        assert bound >= exact * (1 - 1e-12)
        if weight == 1.0:  # all cells err together: the bound is the error
            assert bound == pytest.approx(exact)


def test_error_is_unknown_from_one_batch() -> None:
    assert np.isnan(mean_error(a_grid(0.5, np.full((5, 5), np.nan))))


@pytest.mark.parametrize(
    ("difference", "error", "verdict"),
    [(0.1, 0.01, 1), (-0.1, 0.01, -1), (0.1, 0.1, 0), (0.0, 0.0, 0), (0.1, np.nan, 0)],
)
def test_differences_within_their_errors_are_none(
    difference: float, error: float, verdict: int
) -> None:
    assert NOTEWORTHY >= 2
    errors = np.full((5, 5), error)
    assert _compared(a_grid(0.5 + difference, errors), a_grid(0.5, errors)) == verdict


def a_grid(value: float, errors: np.ndarray) -> Grid:
    names = tuple(map(str, range(len(errors))))
    values = np.full(errors.shape, value)
    return Grid("a", "a", names, names, values, errors, "cka")
