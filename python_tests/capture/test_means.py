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


def norm(kind: str = "instance", *, affine: bool = False) -> nn.Module:
    """One that gives each map of each sample the same mean."""
    layer = nn.GroupNorm(8, 8, affine=affine)
    if kind == "instance":
        layer = nn.InstanceNorm2d(8, affine=affine)
    if affine:
        nn.init.normal_(layer.weight), nn.init.normal_(layer.bias)
    return layer


def maps(n: int, size: int, *, mean: float = 0.0) -> Tensor:
    return torch.randn(n, 8, size, size) + mean


def plain(x: Tensor) -> Tensor:
    return x.double().flatten(2).mean(2)


@pytest.mark.parametrize(
    ("mean", "dtype"),
    [(0.0, torch.float32), (10.0, torch.float32), (1000.0, torch.float32), (0.0, torch.bfloat16)],
)
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("kind", ["instance", "group"])
def test_norms_leave_no_means(kind: str, mean: float, affine: bool, dtype: torch.dtype) -> None:
    layer = norm(kind, affine=affine)
    found = Means()
    for n in (1, 6, 6):
        x = layer(maps(n, 9, mean=mean)).detach().to(dtype)
        means_ = found.of("norm", layer, x, "first")
        assert torch.equal(means_, means_[:1].expand_as(means_))
        assert torch.allclose(means_.double(), plain(x), atol=1e-2 if mean == 1000 else 2e-3)
    shift = layer.bias.detach() if affine else torch.zeros(8)
    assert torch.equal(means_[0], shift), "whatever the samples are"
    assert list(found.constant) == ["norm"]


def test_running_averages_leave_means() -> None:
    layer = nn.InstanceNorm2d(8, track_running_stats=True).eval()
    x = layer(maps(6, 9))
    assert torch.equal(Means().of("norm", layer, x, "first"), x.flatten(2).mean(2))


@pytest.mark.parametrize("share", [1.0, 1e-3])
def test_a_norm_that_does_more_is_looked_at_as_any_layer(share: float) -> None:
    class Adaptive(nn.InstanceNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) + share * x.mean((2, 3), keepdim=True)

    layer = Adaptive(8)
    x = layer(maps(6, 9))
    assert torch.equal(Means().of("norm", layer, x, "first"), x.flatten(2).mean(2))


def test_rounding_of_any_layer_is_no_feature() -> None:
    x = maps(6, 9)
    x = x - x.mean((2, 3), keepdim=True)
    assert len(plain(x).unique(dim=0)) > 1, "rounding tells them apart"
    assert torch.equal(means(x, "first"), torch.zeros(6, 8))
    assert torch.equal(means(x.movedim(1, -1), "last"), torch.zeros(6, 8))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_features_that_vary_are_as_they_were(dtype: torch.dtype) -> None:
    x = torch.randn(6, 8, 32, 32).to(dtype)
    found = means(x, "first")
    assert found.dtype == torch.promote_types(dtype, torch.float32), "averages gain digits"
    assert torch.allclose(found.double(), plain(x), rtol=0, atol=1e-7)


@pytest.mark.parametrize(("dtype", "least"), [(torch.float64, 1e-14), (torch.float32, 3e-6)])
def test_small_differences_of_large_features_are_kept(dtype: torch.dtype, least: float) -> None:
    x = torch.ones(6, 1, 8, 8, dtype=dtype)
    x *= 1 + least * torch.arange(6, dtype=dtype)[:, None, None, None]
    assert len(means(x, "first").unique()) == 6


def test_a_layer_that_varies_later_is_not_called_constant() -> None:
    found, layer = Means(), nn.ReLU()
    still = torch.rand(1, 8, 9, 9).expand(6, 8, 9, 9).clone()
    still[1:] = still[1:].flatten(2)[..., torch.randperm(81)].unflatten(2, (9, 9))
    found.of("relu", layer, still, "first")
    varying = torch.rand(6, 8, 9, 9)
    assert torch.equal(found.of("relu", layer, varying, "first"), varying.flatten(2).mean(2))
    assert not found.constant


def test_no_samples_and_no_positions() -> None:
    assert means(torch.zeros(0, 8, 3, 3), "first").shape == (0, 8)
    x = 1 + 1e-7 * torch.randn(6, 3)
    assert torch.equal(means(x, "first"), x), "two dimensions are no means"


class Normalised(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.InstanceNorm2d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu().mean((2, 3))


@pytest.mark.parametrize(("measure", "batch_size"), [("cka", 16), ("cca", 16), ("cca", 1)])
def test_compare_gives_them_no_value(measure: str, batch_size: int) -> None:
    data = torch.randn(48, 3, 8, 8) + 100
    given = {"maps": "pool", "batch_size": batch_size, "measure": measure}
    found = compare(Normalised(), data, **given)
    assert [math.isnan(found.value[i, i]) for i in range(2)] == [False, True]
    assert any("'norm'" in note and "equal for all samples" in note for note in found.notes)
    assert [*found.undefined["Normalised"]] == ["norm"]


def test_maps_that_differ_have_a_value() -> None:
    flat = compare(Normalised(), torch.randn(48, 3, 8, 8), maps="flatten", batch_size=16)
    assert not math.isnan(flat.value[1, 1])


def test_half_precision_is_averaged_in_float32() -> None:
    x = 0.5 + 0.1 * torch.randn(48, 3, 64, 64)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 6, 3), nn.ReLU()).bfloat16()
    found = compare(model, x.bfloat16(), maps="pool", batch_size=48)
    layers: list[Tensor] = []
    with torch.no_grad():
        out = x.bfloat16()
        for layer in model:
            out = layer(out)
            layers.append(plain(out))
    expected = [[float(cka(a, b)) for b in layers] for a in layers]
    assert torch.allclose(torch.from_numpy(found.value), torch.tensor(expected).double(), atol=1e-4)


def test_capture_gives_equal_rows_and_says_so() -> None:
    capture = Capture(Normalised(), maps="pool")
    with pytest.warns(UserWarning, match="'norm' are equal for all samples"), capture:
        capture.model(torch.randn(6, 3, 8, 8))
    assert len(capture.activations["norm"].unique(dim=0)) == 1


def test_measures_of_two_have_none() -> None:
    centred = maps(20, 9)
    centred = centred - centred.mean((2, 3), keepdim=True)
    x, y = prepare(centred, maps="pool"), prepare(torch.randn(20, 4))
    assert math.isnan(float(cka(x, y)))
    with pytest.raises(ValueError, match="features that vary"):
        cca(x, y)
