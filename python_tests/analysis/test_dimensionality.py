"""Dimensionality of data whose dimension is known, and of a network's layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repsim_fast.analysis.dimensionality import (
    components_for,
    dimensionality,
    dimensions,
    participation_ratio,
    two_nn,
)
from repsim_fast.analysis.moments import GroupedMoments
from repsim_fast.attacks import PGD


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def flat(n: int, d: int, p: int, seed: int = 0) -> Tensor:
    """n uniform samples of a cube of d dimensions, in p."""
    cube = torch.rand(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return 5 + cube @ torch.linalg.qr(draw(p, p, seed=99)).Q[:d]


def test_components_of_known_spectra() -> None:
    values = torch.tensor([1.0, 5.0, 3.0, 1.0])
    assert [components_for(values, share) for share in (0.5, 0.8, 0.81, 1.0)] == [1, 2, 3, 4]
    assert components_for(torch.ones(20), 0.95) == 19  # met exactly
    assert math.isnan(components_for(torch.zeros(3), 0.9))
    with pytest.raises(ValueError, match="share: expected a number in"):
        components_for(values, 90)


def test_participation_ratio_of_known_spectra() -> None:
    assert participation_ratio(torch.tensor([2.0, 2.0, 2.0, 0.0])) == pytest.approx(3)
    assert participation_ratio(torch.tensor([4.0, 3.0])) == pytest.approx(49 / 25)
    assert math.isnan(participation_ratio(torch.zeros(3)))


@pytest.mark.parametrize("p", [12, 700])  # covariance and Gram
def test_an_exact_spectrum(p: int) -> None:
    """Of samples whose covariance is known to the last digit."""
    n, d = 400, 10
    scores = draw(n, d)
    scores = torch.linalg.qr(scores - scores.mean(0)).Q
    x = 3 + scores * torch.tensor([3.0] * 5 + [1.0] * 5) @ torch.linalg.qr(draw(p, p)).Q[:d]
    found = dimensions(x)
    # Five shares of 0.18 are 0.9 exactly.
    assert (found.components_90.value, found.components_95.value) == (5, 8)
    assert found.participation_ratio.value == pytest.approx(50**2 / (5 * 81 + 5), rel=1e-9)
    assert (found.features, found.samples) == (p, n)


@pytest.mark.parametrize(("d", "tolerance"), [(1, 0.08), (2, 0.08), (3, 0.08), (5, 0.12)])
def test_intrinsic_dimension_of_cubes(d: int, tolerance: float) -> None:
    """Edges, which are more of a cube of more dimensions, make the estimate low."""
    found = [two_nn(flat(1000, d, 20, seed)) for seed in range(4)]
    assert np.mean(found) == pytest.approx(d, rel=tolerance)


def test_a_curved_sheet_has_two_dimensions_and_more_components() -> None:
    t, height = (torch.rand(2, 2000, generator=torch.Generator().manual_seed(0))).double()
    angle = 1.5 * math.pi * (1 + 2 * t)
    found = dimensions(torch.stack((angle * angle.cos(), 20 * height, angle * angle.sin()), 1))
    assert found.intrinsic.value == pytest.approx(2, abs=0.15)
    assert found.components_95.value == 3


def test_equal_samples_do_not_count() -> None:
    x = flat(500, 2, 5)
    assert two_nn(torch.cat((x, x[:50]))) == pytest.approx(two_nn(x), rel=0.15)
    assert math.isnan(two_nn(torch.ones(10, 3)))


@pytest.mark.parametrize("p", [3, 80])  # folded into covariances, and kept as rows
@pytest.mark.parametrize("mean", [1e4, 1e7, 1e9])
def test_a_large_mean_changes_nothing_in_float64(mean: float, p: int) -> None:
    x = draw(400, p)
    far = x.clone()
    far[:, 0] += mean
    assert two_nn(far) == pytest.approx(two_nn(x), rel=1e-16 * mean + 1e-9)
    found, want = dimensions(far), dimensions(x)
    assert found.components_90.value == want.components_90.value
    for index in ("participation_ratio", "intrinsic"):
        value = getattr(want, index).value
        assert getattr(found, index).value == pytest.approx(value, rel=1e-16 * mean + 1e-9)


@pytest.mark.parametrize("n", [50, 5000])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_constant_features_have_no_dimension(dtype: torch.dtype, n: int) -> None:
    found = dimensions(torch.full((n, 3), 0.1, dtype=dtype))
    assert math.isnan(found.participation_ratio.value)
    assert math.isnan(found.components_90.value)
    assert math.isnan(found.intrinsic.value)


@pytest.mark.parametrize("index", ["participation_ratio", "intrinsic"])
def test_standard_errors_are_the_spread_of_new_samples(index: str) -> None:
    scales = torch.linspace(1, 3, 6, dtype=torch.float64)
    found = [getattr(dimensions(draw(400, 6, seed=s) * scales), index) for s in range(40)]
    spread = np.std([e.value for e in found], ddof=1)
    mean_error = np.sqrt(np.mean([e.standard_error**2 for e in found]))
    # A spread of 40 values is known to 11 %; a jackknife of 10 groups is a little large.
    assert mean_error / spread == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("p", [3, 40])  # folded into covariances, and kept as rows
@pytest.mark.parametrize("size", [7, 50])
def test_moments_are_those_of_the_rows_left(p: int, size: int) -> None:
    rows = 100 + draw(101, p)
    moments = GroupedMoments(4)
    for part in rows.split(size):
        moments.add(part)
    number = torch.arange(101) % 4
    wanted = [rows, *(rows[number != g] for g in range(4))]
    for found, own in zip(moments.spectra(), wanted, strict=True):
        values = torch.linalg.svdvals(own - own.mean(0)).square()
        torch.testing.assert_close(found, values, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("p", [3, 40])
def test_rows_of_a_sample_are_left_out_together(p: int) -> None:
    rows = 100 + draw(10 * 9, p)
    moments = GroupedMoments(4)
    for part in rows.split((4 * 9, 1 * 9, 5 * 9)):
        moments.add(part, samples=len(part) // 9)
    number = (torch.arange(10) % 4).repeat_interleave(9)
    wanted = [rows, *(rows[number != g] for g in range(4))]
    for found, own in zip(moments.spectra(), wanted, strict=True):
        values = torch.linalg.svdvals(own - own.mean(0)).square()
        torch.testing.assert_close(found, values[: len(found)], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("index", ["participation_ratio", "intrinsic"])
def test_positions_of_an_image_are_no_new_samples(index: str) -> None:
    """Positions that are nearly alike say no more than one of them, whatever their number."""
    scales, found = torch.tensor([3.0, 2.0, 1.0, 1.0, 0.5]), []
    for seed in range(30):
        image = draw(60, 5, seed=seed).float() * scales
        maps = image[:, :, None, None] + 0.05 * draw(60, 5, 4, 4, seed=100 + seed).float()
        layers = dimensionality(nn.Sequential(nn.Upsample(scale_factor=1)), maps, layers="0",
                                maps="positions", batch_size=25)  # fmt: skip
        assert layers["0"].clean.samples == 60 * 16
        found.append(getattr(layers["0"].clean, index))
    spread = np.std([e.value for e in found], ddof=1)
    mean_error = np.sqrt(np.mean([e.standard_error**2 for e in found]))
    assert mean_error / spread == pytest.approx(1, abs=0.4)


def test_samples_of_different_numbers_of_tokens_have_no_errors() -> None:
    x = draw(20, 6, 4).float()
    x[3, 2:] = 0
    x[5, 1:] = 0  # 111 tokens of 20 samples
    found = dimensionality(
        nn.Sequential(nn.Linear(4, 3)), x, layers="0", maps="tokens", mask=lambda x: (x != 0).any(2)
    )["0"].clean
    assert found.samples == 111
    assert found.participation_ratio.value > 1
    for estimate in (found.participation_ratio, found.components_90, found.intrinsic):
        assert math.isnan(estimate.standard_error)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Linear(8, 30)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.conv(x)).mean((2, 3))
        return self.relu(self.fc(x))


def brighter(model: Any, x: Tensor, y: Tensor) -> Tensor:
    """Which runs the model, as an attack does."""
    with torch.no_grad():
        model(x[:1])
    return x + 0.1 * y.view(-1, 1, 1, 1)


@pytest.mark.parametrize("batch_size", [9, 60])
def test_layers_and_their_change(batch_size: int) -> None:
    net, x, y = Net(), torch.rand(60, 1, 8, 8), torch.arange(60) % 3
    found = dimensionality(net, (x, y), perturbation=brighter, batch_size=batch_size)
    assert net.training
    assert not any(module._forward_hooks for module in net.modules())
    with torch.no_grad():
        hidden = [
            torch.relu(net.conv(images)).mean((2, 3))
            for images in (x, x + 0.1 * y.view(-1, 1, 1, 1))
        ]
        deep = [torch.relu(net.fc(h)) for h in hidden]
    assert list(found) == ["relu", "relu#2"]
    for name, (clean, other) in {"relu": hidden, "relu#2": deep}.items():
        own = {"clean": clean, "perturbed": other, "change": other - clean}
        for kind, rows in own.items():
            got, want = getattr(found[name], kind), dimensions(rows)
            assert got.components_90.value == want.components_90.value
            assert got.participation_ratio.value == pytest.approx(
                want.participation_ratio.value, rel=1e-3
            )
    assert found["relu"].clean.features == 8
    alone = dimensionality(net, x, layers="fc", batch_size=batch_size)
    assert list(alone) == ["fc"]
    assert alone["fc"].change is None
    maps = dimensionality(net, x, layers="conv", maps="flatten")
    assert maps["conv"].clean.features == 8 * 36


def test_an_attack_is_not_given_labels_that_nobody_gave() -> None:
    net, x, seen = Net(), torch.rand(20, 1, 8, 8), []

    def spy(model: nn.Module, x: Tensor, y: Tensor | None) -> Tensor:
        seen.append(y)
        return x

    dimensionality(net, x, perturbation=spy)
    assert set(seen) == {None}
    with pytest.raises(TypeError, match=r"y must be an integer tensor of labels, got NoneType"):
        dimensionality(net, x, perturbation=PGD(0.1))


def test_bad_input() -> None:
    net, x = Net(), torch.rand(20, 1, 8, 8)
    with pytest.raises(ValueError, match="groups must be at least 2"):
        dimensionality(net, x, groups=1)
    with pytest.raises(ValueError, match="neighbours 3"):
        dimensionality(net, x, neighbours=2)
    with pytest.raises(ValueError, match="at least three samples, got 2"):
        dimensionality(net, x[:2])
    with pytest.raises(ValueError, match=r"'relu' must have finite activations"):
        dimensionality(net, x * float("nan"))
    for wrong in ({"groups": 2.5}, {"neighbours": None}, {"groups": "ten"}):
        with pytest.raises(TypeError, match="must be a whole number"):
            dimensionality(net, x, **wrong)
    with pytest.raises(TypeError, match=r"perturbation must be callable.*got 3"):
        dimensionality(net, x, perturbation=3)
    with pytest.raises(ValueError, match="perturbation must keep the shape"):
        dimensionality(net, x, perturbation=lambda model, x, y: x[:, :, :4])
    for rows in (torch.rand(2, 3), torch.rand(9, 0)):
        for index in (two_nn, dimensions):
            with pytest.raises(ValueError, match=r"three samples of one feature or more, got \("):
                index(rows)
    with pytest.raises(ValueError, match="expected finite values"):
        dimensions(torch.full((5, 2), float("inf")))
    with pytest.raises(ValueError, match="expected a matrix"):
        dimensions(torch.rand(5, 2, 2))
