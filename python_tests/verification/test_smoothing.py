"""Certificates of randomised smoothing against closed forms."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta, norm
from torch import Tensor, nn

from repsim_fast import verification
from repsim_fast.verification import ABSTAIN, Certificates, certified_accuracy, certify, predict

SIGMA = 0.5


@pytest.fixture
def linear() -> nn.Module:
    """Two classes: the smoothed classifier is the classifier itself."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(12, 2))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(60, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def margins(linear: nn.Module, images: Tensor) -> Tensor:
    """Signed distances to the boundary, positive for class 0: the exact radii."""
    weight = linear[1].weight.detach().double()
    bias = linear[1].bias.detach().double()
    w, b = weight[0] - weight[1], bias[0] - bias[1]
    return (images.flatten(1).double() @ w + b) / w.norm()


def test_radii_of_a_linear_classifier(linear: nn.Module, images: Tensor) -> None:
    exact = margins(linear, images)
    n, alpha = 20_000, 0.001
    found = certify(linear, images, sigma=SIGMA, n0=2000, n=n, alpha=alpha, seed=0)
    certain = found.prediction != ABSTAIN
    # p is then 0.56 at least, five deviations of the draws that choose the class above 1/2.
    assert bool(certain[exact.abs() > 0.15 * SIGMA].all())
    assert torch.equal(found.prediction[certain], (exact[certain] < 0).long())
    # The limit lies below the truth (60 chances of 0.001 each), by its own 3.1 deviations and at
    # most 4.4 of the draws.
    assert bool((found.radius[certain] <= exact.abs()[certain]).all())
    p = norm.cdf(exact.abs()[certain] / SIGMA)
    least = SIGMA * norm.ppf(p - 7.5 * np.sqrt(p * (1 - p) / n) - 12 / n)
    assert (found.radius[certain].numpy() >= least).all()


def test_the_limit_is_that_of_clopper_and_pearson() -> None:
    always = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    with torch.no_grad():
        always[1].weight.zero_()
        always[1].bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    found = certify(always, torch.rand(2, 1, 2, 2), sigma=SIGMA, n=500, alpha=0.01, seed=0)
    assert found.prediction.tolist() == [1, 1]
    assert found.radius.tolist() == pytest.approx([SIGMA * norm.ppf(0.01 ** (1 / 500))] * 2)
    assert beta.ppf(0.01, 500, 1) == pytest.approx(0.01 ** (1 / 500))


def test_certificates_are_wrong_as_often_as_stated() -> None:
    """p is exactly 0.8: with alpha 0.2, a fifth of the certificates may exceed the true radius."""
    line = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    exact = SIGMA * norm.ppf(0.8)
    found = certify(
        line, torch.full((2000, 1), exact), sigma=SIGMA, n=200, alpha=0.2, batch_size=50_000, seed=0
    )
    wrong = float((found.radius > exact).double().mean())
    assert 0.1 < wrong < 0.2 + 4 * math.sqrt(0.2 * 0.8 / 2000)


def test_predictions(linear: nn.Module, images: Tensor) -> None:
    exact = margins(linear, images)
    found = predict(linear, images, sigma=SIGMA, n=2000, seed=0)
    certain = found != ABSTAIN
    assert torch.equal(found[certain], (exact[certain] < 0).long())
    assert bool(certain[exact.abs() > 0.15 * SIGMA].all())
    weight = linear[1].weight.detach()
    direction = (weight[0] - weight[1]) / (weight[0] - weight[1]).norm()
    boundary = images - (exact.float()[:, None] * direction).view_as(images)
    assert bool((predict(linear, boundary, sigma=SIGMA, n=2000, seed=0) == ABSTAIN).all())


def test_seeds_and_the_model_left_as_it_was(images: Tensor) -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 3)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    options: dict[str, Any] = {"sigma": SIGMA, "n": 1000}
    one, same, other = (certify(net, images, seed=seed, **options) for seed in (0, 0, 1))
    assert torch.equal(one.radius, same.radius)
    assert not torch.equal(one.radius, other.radius)
    assert torch.equal(state, torch.get_rng_state())
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_certified_accuracy() -> None:
    found = Certificates(
        torch.tensor([0, 1, ABSTAIN, 1]), torch.tensor([0.3, 0.6, 0.0, 0.9]).double(), 0.001
    )
    scores = certified_accuracy(found, torch.tensor([0, 1, 2, 0]), (0.0, 0.5, 0.6, 0.7))
    assert scores.accuracy.tolist() == [0.5, 0.25, 0.25, 0.0]
    assert (scores.abstained, scores.n) == (0.25, 4)
    # Wilson by hand for 2 of 4: (p + z2/2n -+ z sqrt(p(1-p)/n + z2/4n2)) / (1 + z2/n).
    z2 = 1.96**2
    half = 1.96 * math.sqrt(0.25 / 4 + z2 / 64)
    assert scores.low[0] == pytest.approx((0.5 + z2 / 8 - half) / (1 + z2 / 4))
    assert scores.high[0] == pytest.approx((0.5 + z2 / 8 + half) / (1 + z2 / 4))
    assert scores.low[3] == 0.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sigma": 0.0}, "sigma must be positive"),
        ({"sigma": math.nan}, "sigma must be positive"),
        ({"n": 0}, "n must be at least 1"),
        ({"n0": 0}, "n0 must be at least 1"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
        ({"alpha": 1.0}, r"alpha must lie in \(0, 1\)"),
    ],
)
def test_bad_settings(
    linear: nn.Module, images: Tensor, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        certify(linear, images, **{"sigma": SIGMA, **options})


@pytest.mark.parametrize(("name", "value"), [("sigma", "0.25"), ("alpha", None)])
def test_values_that_are_no_numbers(
    linear: nn.Module, images: Tensor, name: str, value: object
) -> None:
    for function in (certify, predict):
        with pytest.raises(TypeError, match=f"{name} must be a number, got {value!r}"):
            function(linear, images, **{"sigma": SIGMA, name: value})


def test_bad_input(linear: nn.Module, images: Tensor) -> None:
    with pytest.raises(ValueError, match="x must be a non-empty batch"):
        certify(linear, images[:0], sigma=SIGMA)
    with pytest.raises(TypeError, match="x must be a floating-point tensor"):
        predict(linear, images.byte(), sigma=SIGMA)
    found = verification.certify(linear, images, sigma=SIGMA, n=100, seed=0)
    with pytest.raises(ValueError, match="radii: expected numbers that are not negative"):
        certified_accuracy(found, torch.zeros(60, dtype=torch.int64), (-0.1,))
    with pytest.raises(TypeError, match=r"radii: expected numbers, got \('a',\)"):
        certified_accuracy(found, torch.zeros(60, dtype=torch.int64), ("a",))
    with pytest.raises(ValueError, match=r"y must have shape \(60,\)"):
        certified_accuracy(found, torch.zeros(5, dtype=torch.int64))


def test_an_abstention_is_no_label() -> None:
    found = Certificates(torch.tensor([ABSTAIN, 0]), torch.zeros(2, dtype=torch.float64), 0.001)
    labels = torch.tensor([ABSTAIN, 0])
    assert certified_accuracy(found, labels, [0.0]).accuracy.tolist() == [0.5]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_noise_is_normal_whatever_the_images_are(dtype: torch.dtype) -> None:
    seen: list[Tensor] = []

    def model(x: Tensor) -> Tensor:
        seen.append(x)
        return torch.stack((x[:, 0], -x[:, 0]), 1)

    certify(model, torch.ones(1, 8, dtype=dtype), sigma=0.25, n=1000, seed=0)
    noise = torch.cat(seen)
    assert len(noise.unique()) > 0.99 * noise.numel()  # 16 bits have a few hundred values here


def test_counts_are_whole() -> None:
    with pytest.raises(TypeError, match=r"n must be a whole number, got 10\.5"):
        certify(lambda x: x, torch.ones(1, 2), sigma=0.25, n=10.5)  # type: ignore[arg-type]
