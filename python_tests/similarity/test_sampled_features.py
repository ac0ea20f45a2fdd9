"""CKA of populations from samples of their features, against populations that are known."""

from __future__ import annotations

import math
import statistics
import warnings

import numpy as np
import pytest
import torch

from python_tests.support.definitions import hsic
from repsim_fast.similarity import (
    UndefinedError,
    cka,
    cka_sampled_features,
    get_measure,
    grid,
    permutation_test,
    prepare,
)
from repsim_fast.similarity.measures.sampled_features import CKASampledFeatures


def populations(units: int = 2000) -> tuple[torch.Tensor, torch.Tensor]:
    """Responses of two populations to the same 24 latent variables."""
    latent = torch.randn(400, 24)
    return latent @ torch.randn(24, units), latent @ torch.randn(24, units)


def some(x: torch.Tensor, units: int) -> torch.Tensor:
    return x[:, torch.randperm(x.shape[1])[:units]]


@pytest.mark.parametrize(("units", "plain"), [(100, 0.80), (30, 0.55), (10, 0.29)])
def test_mean_over_samples_of_units_is_that_of_the_population(units, plain):
    x, y = populations()
    truth = float(cka(x, y))
    assert truth == pytest.approx(0.988, abs=0.002)
    drawn = [(some(x, units), some(y, units)) for _ in range(80)]
    uncorrected = torch.stack([cka(a, b) for a, b in drawn]).mean()
    assert float(uncorrected) == pytest.approx(plain, abs=0.02)
    for population, expected in ((2000, truth), (None, float(cka_sampled_features(x, y)))):
        values = torch.stack([cka_sampled_features(a, b, population=population) for a, b in drawn])
        error = values.std() / len(drawn) ** 0.5
        # Of a ratio of unbiased estimates, whose own bias falls with the square of their spread.
        assert abs(float(values.mean()) - expected) < float(3 * error + values.std() ** 2 / 2)


def test_of_the_whole_population_it_is_cka():
    x, y = populations(50)
    assert float(cka_sampled_features(x, y, population=50)) == pytest.approx(float(cka(x, y)))
    assert float(cka_sampled_features(x, y)) > float(cka(x, y))


def test_unrelated_populations():
    drawn = [(populations(50)[0], populations(50)[1]) for _ in range(60)]
    values = torch.stack([cka_sampled_features(x, y) for x, y in drawn])
    assert abs(float(values.mean())) < 4 * float(values.std()) / 60**0.5


def test_properties():
    """Those of its Info, for features that have something in common."""
    x, y = (m.double()[:50, :40] for m in populations())
    value = float(cka_sampled_features(x, y))
    for other in (x.flip(1), 3 * x, x + torch.randn(40)):
        assert float(cka_sampled_features(other, y)) == pytest.approx(value)
    rotation = torch.linalg.qr(torch.randn(40, 40).double())[0]
    assert float(cka_sampled_features(x @ rotation, y)) != pytest.approx(value, abs=1e-3)
    x, y = ((m + 3 * m[:, :1])[:12, :5].clone().requires_grad_() for m in (x, y))
    assert torch.autograd.gradcheck(cka_sampled_features, (x, y), atol=1e-5)


def test_permutations_of_samples():
    x, y = (m[:, :30] for m in populations())
    measure = get_measure("cka_sampled_features")
    rows = torch.randperm(400)
    moved = measure.view(prepare(y)).take(rows)
    value = measure.pairs([measure.view(prepare(x))], [moved], [(0, 0)])[0]
    expected = float(cka_sampled_features(x, y[rows]))
    assert float(value) == pytest.approx(expected, abs=1e-5)
    assert permutation_test("cka_sampled_features", x, y, permutations=19).p_value == 0.05


@pytest.mark.parametrize("units", [20, 300])
@pytest.mark.parametrize("ratio", [1, 1e5])
def test_both_forms_and_a_large_sample(units, ratio):
    latent = torch.randn(100, 3)
    latent[0] *= ratio
    x, y = latent @ torch.randn(3, units), latent @ torch.randn(3, 30)
    wide = grid("cka_sampled_features", [x.double()], [y.double()])
    torch.testing.assert_close(grid("cka_sampled_features", [x], [y]), wide, atol=1e-5, rtol=0)


@pytest.mark.parametrize("n", [100, 500])  # from the Gram, and from features
@pytest.mark.parametrize("ratio", [100, 3000])
def test_a_large_feature(n, ratio):
    """Which has nearly all of the HSIC, of which what others share is the difference."""
    latent = torch.randn(n, 8)
    x, y = latent @ torch.randn(8, 64), latent @ torch.randn(8, 64)
    x[:, 0] *= ratio
    expected = cka_sampled_features(x.double(), y.double())
    torch.testing.assert_close(cka_sampled_features(x, y).double(), expected, rtol=1e-5, atol=0)


@pytest.mark.parametrize("large", [0, 1, 2])
def test_a_large_feature_in_one_of_several_layers(large):
    """The Gram of one is float64, those of the others float32."""
    latent = torch.randn(30, 8)
    layers = [latent @ torch.randn(8, 40) for _ in range(3)]
    layers[large][:, 3] *= 3000
    wide = grid("cka_sampled_features", [x.double() for x in layers])
    torch.testing.assert_close(grid("cka_sampled_features", layers), wide, rtol=1e-5, atol=1e-5)


def drawn(units: int, spread: float = 0.0) -> tuple[torch.Tensor, list[float]]:
    """Values over draws of features, of a spread of sizes, and the errors that are told of them."""
    measure, values, errors = CKASampledFeatures(), [], []
    for _ in range(40):
        latent = torch.randn(400, 24)
        pair = [
            latent @ (torch.randn(24, units) * (spread * torch.randn(units)).exp()) for _ in "xy"
        ]
        views = [measure.view(prepare(x)) for x in pair]
        values.append(measure.pairs(views[:1], views[1:], [(0, 0)])[0])
        errors.append(math.hypot(*(view.error for view in views)) / 2)
    return torch.stack(values), errors


@pytest.mark.parametrize(("units", "spread"), [(10, 0), (20, 0), (20, 0.5)])
def test_error_over_draws_of_features(units, spread):
    values, errors = drawn(units, spread)
    assert 0.5 < statistics.median(errors) / (values.std() / values.mean()) < 2


def test_error_by_leaving_features_out():
    x = torch.randn(60, 12, dtype=torch.float64) @ torch.randn(12, 12, dtype=torch.float64)
    for features in (x, x[:20]):  # by features, and by samples
        view = CKASampledFeatures().view(prepare(features))
        left_out = []
        for u in range(12):
            rest = features[:, torch.arange(12) != u]
            left_out.append(population_hsic(rest))
        left_out = torch.stack(left_out)
        error = (left_out.var(correction=0) * 11).sqrt() / population_hsic(features)
        assert view.error == pytest.approx(float(error), rel=1e-6)


def population_hsic(x: torch.Tensor) -> torch.Tensor:
    """Mean over pairs of features of HSIC of one with the other."""
    p = x.shape[1]
    grams = [np.outer(one, one) for one in x.mT.numpy()]
    each = [hsic(grams[u], grams[v], "unbiased") for u in range(p) for v in range(p) if u != v]
    return torch.tensor(np.mean(each))


def test_caution_of_few_features():
    x, y = populations()
    for units, said in ((5, True), (200, False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            cka_sampled_features(some(x, units), some(y, units))
            grid("cka_sampled_features", [some(x, units)], [some(y, units)])
        texts = [str(one.message) for one in caught]
        assert len(texts) == 2 * said
        assert all("p = 5 and q = 5 features tell little of" in text for text in texts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cka_sampled_features(x[:, :5], y[:, :5], population=5)


def test_two_features_tell_no_error():
    # Two directions in common, of which either feature has one, and a little of the other.
    x = torch.randn(400, 2) @ torch.tensor([[1.0, 0.6], [0.6, 1.0]]) + torch.randn(400, 2)
    with pytest.warns(UserWarning, match="p = 2 and q = 2 .* may differ by any amount"):
        cka_sampled_features(x, x + torch.randn(400, 2))


def test_refusals():
    x, y = torch.randn(30, 1), torch.randn(30, 5)
    with pytest.raises(UndefinedError, match=r"x: HSIC of the population .* from 1 features"):
        cka_sampled_features(x, y)
    with pytest.raises(ValueError, match="population: expected at least the 5 features of x, got"):
        cka_sampled_features(y, x, population=4)
    assert float(cka_sampled_features(y, y + torch.randn(30, 1), population=5)) > 0
