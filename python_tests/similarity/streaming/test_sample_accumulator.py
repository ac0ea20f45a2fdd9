"""Measures of all samples behind the engine's seam: batches in, a grid out."""

from __future__ import annotations

import pytest
import torch

from repsim_fast.similarity import UndefinedError, get_measure, grid, jackknife, measure_names
from repsim_fast.similarity.base.accumulator import NotFiniteError
from repsim_fast.similarity.streaming.samples import SampleAccumulator


def layers(n: int = 60) -> list[torch.Tensor]:
    x = torch.randn(n, 5)
    return [x, x @ torch.randn(5, 8) + torch.randn(n, 8), torch.randn(n, 12).relu()]


def feed(accumulator: SampleAccumulator, features: list[torch.Tensor], size: int = 16) -> None:
    for start in range(0, len(features[0]), size):
        batch = [f[start : start + size].clone() for f in features]
        order = list(range(len(batch)))
        for i in order if start == 0 else order[::-1]:
            accumulator.add(i, batch[i])
            batch[i].zero_()  # valid during the call only
        accumulator.end_batch(len(batch[0]))


# cka_sampled_features has no value for features that have nothing in common.
@pytest.mark.parametrize("name", [n for n in measure_names() if n != "cka_sampled_features"])
def test_estimate_is_the_grid_of_all_samples(name):
    features = layers()
    accumulator = SampleAccumulator(get_measure(name))
    feed(accumulator, features)
    estimate = accumulator.compute()
    torch.testing.assert_close(estimate.value, grid(name, features))
    assert bool(estimate.standard_error.isnan().all())
    assert (estimate.n_samples, estimate.n_batches, estimate.undefined) == (60, 4, {})


def test_options_estimators_and_standard_errors():
    features = layers()
    accumulator = SampleAccumulator(get_measure("svcca", components=3), groups=5, memory=0)
    feed(accumulator, features)
    estimate = accumulator.compute()
    expected = jackknife("svcca", features, groups=5, components=3)
    torch.testing.assert_close(estimate.value, expected.value)
    torch.testing.assert_close(estimate.standard_error, expected.standard_error)
    biased = SampleAccumulator(get_measure("cka", estimator="biased"))
    feed(biased, features)
    torch.testing.assert_close(biased.compute().value, grid("rv_coefficient", features))
    with pytest.raises(ValueError, match="precision: expected None for cca"):
        get_measure("cca").accumulator(precision="bfloat16")


def test_layers_without_a_value_are_nan_and_named():
    features = [*layers(), torch.ones(60, 4), torch.randn(60, 100)]
    accumulator = SampleAccumulator(get_measure("cca"))
    feed(accumulator, features)
    estimate = accumulator.compute()
    assert list(estimate.undefined) == [3, 4]
    assert estimate.undefined[3] == "features: expected features that vary, got 60 equal samples"
    torch.testing.assert_close(estimate.value[:3, :3], grid("cca", features[:3]))
    assert bool(estimate.value[3:].isnan().all())
    assert bool(estimate.value[:, 3:].isnan().all())
    hopeless = SampleAccumulator(get_measure("cca"))
    feed(hopeless, features[3:])
    with pytest.raises(UndefinedError, match="features: expected features that vary"):
        hopeless.compute()


def test_a_batch_that_is_not_finite_is_forgotten():
    features = layers(32)
    accumulator = SampleAccumulator(get_measure("rv_coefficient"))
    feed(accumulator, features)
    before = accumulator.compute()
    for i, f in enumerate(features):
        f = f.clone()
        if i != 1:
            f[0, 0] = float("nan") if i else float("inf")
        accumulator.add(i, f)
    with pytest.raises(NotFiniteError) as raised:
        accumulator.end_batch(32)
    assert raised.value.layers == [0, 2]
    after = accumulator.compute()
    assert torch.equal(before.value, after.value)
    assert after.n_samples == 32
