"""Confidence intervals: limits by definition, and how often they hold what is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from repsim_fast import compare
from repsim_fast.analysis.estimates import student_interval


class Same(nn.Module):
    """Hands on one part of its inputs."""

    def __init__(self, first: int, end: int) -> None:
        super().__init__()
        self.part = slice(first, end)
        self.layer = nn.Hardtanh(-1e9, 1e9)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x[:, self.part])


def test_limits_are_those_of_the_definition() -> None:
    result = compare(Same(0, 5), Same(3, 9), torch.randn(100, 9), batch_size=10)
    for level in (0.5, 0.95):
        low, high = stats.t.interval(
            level, 9, loc=result.value[0, 1], scale=result.standard_error[0, 1]
        )
        ours = result.interval(level)
        np.testing.assert_allclose((ours.low[0, 1], ours.high[0, 1]), (low, high), rtol=1e-12)
    cell = result.between(0, 1).interval()
    np.testing.assert_array_equal(cell.low, result.interval().low[:1, 1:])


def test_limits_less_bias_are_about_the_corrected_value() -> None:
    """A share of variance that least squares explains by chance, 5/n of unrelated features."""
    samples = torch.randn(60, 10)
    result = compare(
        Same(0, 5), Same(5, 10), samples, measure="linear_regression", jackknife=10, shuffle=False
    )
    plain, corrected = result.interval(), result.interval(less_bias=True)
    left_out = result.replicates
    assert left_out is not None
    about = 10 * result.value - 9 * left_out.mean(axis=0)
    np.testing.assert_allclose((corrected.low + corrected.high) / 2, about, atol=1e-12)
    np.testing.assert_allclose(corrected.high - corrected.low, plain.high - plain.low, atol=1e-12)
    assert about[0, 1] < result.value[0, 1] - 0.04  # 5/60 in the mean
    cell = result.between(0, 1).interval(less_bias=True)
    np.testing.assert_allclose(cell.low, corrected.low[:1, 1:], rtol=1e-12)


def test_without_errors_there_are_no_limits() -> None:
    low, high = compare([Same(0, 5)], torch.randn(20, 9), batch_size=20).interval()
    assert np.isnan(low).all()
    assert np.isnan(high).all()


@pytest.mark.parametrize("level", [0.0, 1.0, -0.5, 95, float("nan")])
def test_levels_out_of_range(level: float) -> None:
    with pytest.raises(ValueError, match=r"level: expected a number in \(0, 1\), got"):
        student_interval(0.5, 0.1, 5, level)


def test_coverage_with_four_batches_is_that_of_the_level() -> None:
    """Gaussian features whose population CKA is known; 1.96 errors cover 80 to 88 %."""
    mixing = torch.randn(9, 9) / 3
    covariance = mixing.T @ mixing
    x, y = slice(0, 5), slice(3, 9)
    truth = covariance[x, y].square().sum()
    truth = float(truth / (covariance[x, x].norm() * covariance[y, y].norm()))
    covered = narrow = 0
    for seed in range(300):
        samples = torch.randn(64, 9, generator=torch.Generator().manual_seed(seed)) @ mixing
        result = compare(Same(0, 5), Same(3, 9), samples, batch_size=16)
        low, high = result.between(0, 1).interval()
        covered += int(low[0, 0] <= truth <= high[0, 0])
        value, error = result.value[0, 1], result.standard_error[0, 1]
        narrow += int(abs(value - truth) <= 1.96 * error)
    assert narrow / 300 < 0.91
    assert 0.92 < covered / 300 < 0.98
