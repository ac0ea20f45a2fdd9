"""Means over positions that nothing but rounding tells apart."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from repsim_fast import compare
from repsim_fast.capture import Capture
from repsim_fast.capture.means import Means, means
from repsim_fast.similarity import cca, cka, prepare


def normalised(n: int, size: int, *, mean: float = 0.0, affine: bool = False) -> Tensor:
    layer = nn.InstanceNorm2d(8, affine=affine)
    if affine:
        nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    return layer(torch.randn(n, 8, size, size) + mean).detach()


@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("mean", [0.0, 10.0])
@pytest.mark.parametrize("size", [2, 7, 32])
def test_rounding_is_no_feature(size: int, mean: float, affine: bool) -> None:
    x = normalised(6, size, mean=mean, affine=affine)
    assert len(x.mean((2, 3)).unique(dim=0)) > 1, "rounding tells them apart"
    assert len(means(x, "first").unique(dim=0)) == 1
    last = x.movedim(1, -1)
    assert len(means(last, "last").unique(dim=0)) == 1


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_features_that_vary_are_as_they_were(dtype: torch.dtype) -> None:
    x = torch.randn(6, 8, 32, 32).to(dtype)
    assert torch.equal(means(x, "first"), x.flatten(2).mean(2))


def test_small_differences_of_large_features_are_kept() -> None:
    x = torch.ones(6, 1, 8, 8, dtype=torch.float64)
    x *= 1 + 1e-12 * torch.arange(6, dtype=torch.float64)[:, None, None, None]
    assert len(means(x, "first").unique()) == 6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_of_16_bits_is_no_feature(dtype: torch.dtype) -> None:
    x = normalised(6, 16).to(dtype)
    assert len(means(x, "first").unique(dim=0)) == 1


def test_equal_over_batches() -> None:
    kept = Means()
    rows = [kept.of("norm", normalised(n, 8), "first") for n in (1, 6, 6)]
    assert len(torch.cat(rows[1:]).unique(dim=0)) == 1
    varying = torch.randn(6, 8, 8, 8)
    assert torch.equal(kept.of("norm", varying, "first"), varying.flatten(2).mean(2))
    assert list(kept.constant) == ["norm"]


def test_two_dimensions_are_no_means() -> None:
    x = 1 + 1e-7 * torch.randn(6, 3)
    assert torch.equal(means(x, "first"), x)


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.InstanceNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu().mean((2, 3))


@pytest.mark.parametrize("measure", ["cka", "cca"])
def test_compare_gives_them_no_value(measure: str) -> None:
    data = torch.randn(48, 3, 8, 8)
    found = compare(Normalised(), data, maps="pool", batch_size=16, measure=measure)
    assert [math.isnan(found.value[i, i]) for i in range(2)] == [False, True]
    assert any("'norm'" in note and "equal for all samples" in note for note in found.notes)
    assert [*found.undefined["Normalised"]] == ["norm"]
    flat = compare(Normalised(), data, maps="flatten", batch_size=16)
    assert not math.isnan(flat.value[1, 1])


def test_capture_gives_equal_rows_and_says_so() -> None:
    capture = Capture(Normalised(), maps="pool")
    with capture:
        capture.model(torch.randn(6, 3, 8, 8))
    assert len(capture.activations["norm"].unique(dim=0)) == 1


def test_measures_of_two_have_none() -> None:
    x, y = prepare(normalised(20, 8), maps="pool"), prepare(torch.randn(20, 4))
    assert math.isnan(float(cka(x, y)))
    with pytest.raises(ValueError, match="features that vary"):
        cca(x, y)
