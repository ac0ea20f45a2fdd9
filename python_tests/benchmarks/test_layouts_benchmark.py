"""The benchmark of memory formats holds values against one another before it times."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from benchmarks import layouts as benchmark
from repsim_fast.comparison import layouts


def test_a_case_is_checked_and_timed() -> None:
    row = benchmark.measured("ResNet-8", benchmark.ours("resnet-8"), 8, 64, 1)
    assert row["largest_difference"] < benchmark.AGREE
    assert row["ratio"] > 0
    assert layouts.FEWEST_IMAGES == 64, "is as it was"


def test_other_values_are_an_error() -> None:
    passes = itertools.count()

    class Changing(nn.Sequential):
        """Returns something else in each pass."""

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.sin(x * (1 + next(passes))))

    with pytest.raises(AssertionError):
        benchmark.measured("changing", lambda: Changing(nn.Conv2d(3, 4, 3), nn.ReLU()), 8, 64, 1)


def test_both_sides_are_in_the_cases_of_small_inputs() -> None:
    """So that one sees from how many images on a trial pays."""
    pixels = [count * size * size for _, _, size, count in benchmark.CASES]
    assert min(pixels) < layouts.FEWEST_PIXELS < max(pixels)
    assert min(count for *_, count in benchmark.CASES) <= layouts.FEWEST_IMAGES
