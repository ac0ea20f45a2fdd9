from __future__ import annotations

import math

import pytest
import torch

from repsim_fast.ops import centered_gram
from repsim_fast.similarity import MinibatchCKA, cka
from repsim_fast.similarity.measures.cka import CENTERING
from repsim_fast.similarity.streaming import minibatch
from repsim_fast.similarity.streaming.minibatch import MAX_GROUPS, without_each_group


def layers(n: int) -> list[torch.Tensor]:
    x = torch.randn(n, 12, dtype=torch.float64)
    return [x, x.relu(), x @ torch.randn(12, 5, dtype=torch.float64), torch.randn(n, 3).double()]


def grams(features: list[torch.Tensor], estimator: str) -> torch.Tensor:
    centering = CENTERING[estimator]
    return torch.stack([centered_gram(f, centering=centering, packed=True) for f in features])


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
def test_one_batch_is_the_full_cka(estimator):
    features = layers(64)
    state = MinibatchCKA(estimator=estimator)
    state.update(grams(features, estimator), n=64)
    result = state.compute()
    for i, x in enumerate(features):
        for j, y in enumerate(features):
            assert float(result.value[i, j]) == pytest.approx(
                float(cka(x, y, estimator=estimator)), abs=1e-12
            )
    assert result.standard_error.isnan().all(), "one batch says nothing about its own error"
    assert (result.n_samples, result.n_batches) == (64, 1)


def test_batches_weigh_as_many_samples_as_they_have():
    state = MinibatchCKA()
    sums = torch.zeros(4, 4, dtype=torch.float64)
    for n in (32, 32, 7):
        g = grams(layers(n), "unbiased")
        state.update(g, n=n)
        sums += n * (g @ g.T) / (n * (n - 3))
    own = sums.diagonal()
    expected = sums / (own[:, None] * own[None, :]).sqrt()
    assert torch.allclose(state.compute().value, expected, atol=1e-12)
    assert torch.allclose(state.hsic(), sums / 71)


def test_jackknife_is_leave_one_batch_out():
    batches = [grams(layers(20), "unbiased") for _ in range(6)]
    state = MinibatchCKA()
    for g in batches:
        state.update(g, n=20)
    left_out = []
    for skipped in range(6):
        partial = MinibatchCKA()
        for b, g in enumerate(batches):
            if b != skipped:
                partial.update(g, n=20)
        left_out.append(partial.compute().value)
    deviations = torch.stack(left_out) - torch.stack(left_out).mean(dim=0)
    expected = (5 / 6 * deviations.square().sum(dim=0)).sqrt()
    assert torch.allclose(state.compute().standard_error, expected, atol=1e-9)


def test_standard_error_covers_the_truth():
    """Over repeated experiments the stated error is the true spread, within a factor."""
    values, errors = [], []
    for _ in range(40):
        state = MinibatchCKA()
        for _ in range(16):
            x = torch.randn(32, 6)
            features = [x, x[:, :3] + 0.5 * torch.randn(32, 3)]
            state.update(grams(features, "unbiased"), n=32)
        result = state.compute()
        values.append(float(result.value[0, 1]))
        errors.append(float(result.standard_error[0, 1]))
    spread = torch.tensor(values).std()
    assert 0.6 < float(torch.tensor(errors).mean() / spread) < 1.6


def test_merge_equals_one_accumulator():
    batches = [(n, grams(layers(n), "unbiased")) for n in (16, 24, 16, 9, 16)]
    whole, first, second = MinibatchCKA(), MinibatchCKA(), MinibatchCKA()
    for number, (n, g) in enumerate(batches):
        whole.update(g, n=n)
        (first if number < 2 else second).update(g, n=n)
    merged = first.merge(second).compute()
    assert torch.allclose(merged.value, whole.compute().value)
    assert torch.allclose(merged.standard_error, whole.compute().standard_error)
    assert (merged.n_samples, merged.n_batches) == (81, 5)


def test_memory_stays_bounded_over_many_batches():
    state = MinibatchCKA()
    every = [grams(layers(8), "unbiased") for _ in range(5 * MAX_GROUPS + 3)]
    for g in every:
        state.update(g, n=8)
    assert len(state._groups) <= MAX_GROUPS
    products = sum(g @ g.T for g in every) / (8 * 5)
    assert torch.allclose(state.hsic(), products / len(every))
    other = MinibatchCKA()
    other.update(every[0], n=8)
    state.merge(other)
    assert len(state._groups) <= MAX_GROUPS
    assert state.n_batches == len(every) + 1


def test_many_representations_leave_fewer_groups(monkeypatch):
    """Of neighbours, and the estimate is that of all batches."""
    assert [minibatch.most_groups(size) for size in (1, 724, 1024, 3000)] == [64, 64, 32, 16]
    monkeypatch.setattr(minibatch, "GROUPS_BYTES", 0)
    state, other = MinibatchCKA(), MinibatchCKA()
    hsics = list(torch.randn(40, 5, 5, dtype=torch.float64))
    for hsic in hsics:
        state.add(hsic @ hsic.T, n=8)
        other.add(hsic @ hsic.T, n=8)
    found = state.compute()
    assert found.group_samples == (32,) * 10
    expected = torch.stack([hsic @ hsic.T for hsic in hsics]).mean(dim=0)
    assert torch.allclose(state.hsic(), expected)
    assert (state.merge(other).n_batches, len(state._groups)) == (80, 10)


def test_constant_layer_is_nan_and_spoils_no_other():
    state = MinibatchCKA()
    for _ in range(3):
        state.update(grams([*layers(10), torch.ones(10, 2).double()], "unbiased"), n=10)
    value = state.compute().value
    assert value[4].isnan().all()
    assert value[:4, :4].isfinite().all()


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize("sizes", [1.0, 1e-8, 1e-10, 1e-13, 1e-17, 1e8, 1e12, 1e17, "mixed"])
def test_features_of_any_size(estimator, sizes):
    """Squares of float32 Grams of features below 1e-10 or above 1e8 leave float32."""
    sizes = (1e-17, 1.0, 1e17, 1e-9) if sizes == "mixed" else (sizes,) * 4
    state, exact = MinibatchCKA(estimator=estimator), MinibatchCKA(estimator=estimator)
    for _ in range(3):
        features = [x * size for x, size in zip(layers(20), sizes, strict=True)]
        exact.update(grams(features, estimator), n=20)
        state.update(grams([x.float() for x in features], estimator), n=20)
    got, want = state.compute(), exact.compute()
    assert torch.allclose(got.value, want.value, rtol=0, atol=2e-6)
    assert torch.allclose(got.standard_error, want.standard_error, rtol=0, atol=2e-6)


@pytest.mark.parametrize("size", [1e-70, 1e70])
def test_float64_features_of_any_size(size):
    features = layers(20)
    one, other = MinibatchCKA(), MinibatchCKA()
    one.update(grams(features, "unbiased"), n=20)
    other.update(grams([x * size for x in features], "unbiased"), n=20)
    assert torch.allclose(one.compute().value, other.compute().value, rtol=0, atol=1e-12)


def test_only_squares_that_need_it_are_taken_in_float64(monkeypatch):
    taken = []
    sample_gram = minibatch.sample_gram
    monkeypatch.setattr(minibatch, "sample_gram", lambda x: taken.append(x) or sample_gram(x))
    features = [x.float() for x in layers(20)] + [torch.ones(20, 3)]
    for size in (1.0, 1e-6, 1e6):
        MinibatchCKA().update(grams([x * size for x in features], "unbiased"), n=20)
    assert not taken
    MinibatchCKA().update(grams([*features, features[0] * 1e-12], "unbiased"), n=20)
    assert len(taken) == 1


@pytest.mark.parametrize(
    ("dtype", "factor", "message"),
    [
        (torch.float32, math.nan, "grams: expected finite entries, got NaN or Inf in row 2"),
        (torch.float32, math.inf, "grams: expected finite entries, got NaN or Inf in row 2"),
        (torch.float32, 1e-42, r"grams: expected entries that torch\.float32 holds .* in row 2"),
        (torch.float64, 1e-170, r"grams: expected entries that torch\.float64 holds .* in row 2"),
        (torch.float64, 1e170, r"grams: expected entries that torch\.float64 holds .* in row 2"),
    ],
)
def test_entries_without_squares_are_refused(dtype, factor, message):
    state = MinibatchCKA()
    batch = grams(layers(10), "unbiased").to(dtype)
    batch[2] *= factor
    with pytest.raises(ValueError, match=message):
        state.update(batch, n=10)
    assert state.n_batches == 0


def test_bad_input():
    state = MinibatchCKA()
    with pytest.raises(RuntimeError, match="no batch"):
        state.compute()
    with pytest.raises(ValueError, match="at least 4 samples, got 3"):
        state.update(torch.ones(2, 3), n=3)
    with pytest.raises(ValueError, match=r"grams: expected packed Grams \(L, 45\)"):
        state.update(torch.ones(2, 3), n=10)
    state.update(grams(layers(10), "unbiased"), n=10)
    with pytest.raises(ValueError, match=r"hsic: expected a matrix \(4, 4\), got shape \(2, 2\)"):
        state.add(torch.eye(2, dtype=torch.float64), n=10)
    with pytest.raises(ValueError, match="expected 4 representations as before, got 2"):
        state.update(torch.ones(2, 45), n=10)
    with pytest.raises(ValueError, match="estimator"):
        state.merge(MinibatchCKA(estimator="biased"))
    with pytest.raises(ValueError, match="estimator: expected one of"):
        MinibatchCKA(estimator="debiased")


@pytest.mark.parametrize("batches", [1, 3, 70])
def test_an_estimate_stays_as_it_is_when_more_batches_come(batches: int) -> None:
    accumulated = MinibatchCKA()
    for _ in range(batches):
        accumulated.add(torch.rand(3, 3), n=8)
    estimate = accumulated.compute()
    before = estimate.hsic.clone()
    accumulated.add(torch.rand(3, 3), n=8)
    assert torch.equal(estimate.hsic, before)
    assert accumulated.compute().n_batches == batches + 1


def test_groups_that_an_accumulator_is_made_from_stay_as_they_are() -> None:
    hsic = torch.rand(2, 3, 3, dtype=torch.float64)
    before = hsic.clone()
    accumulated = MinibatchCKA.from_groups(hsic, [16, 16], n_batches=4, estimator="unbiased")
    accumulated.add(torch.rand(3, 3), n=8, number=4)
    accumulated.add(torch.rand(3, 3), n=8, number=5)
    assert torch.equal(hsic, before)


def products(batches: int, size: int = 5) -> list[torch.Tensor]:
    factors = torch.randn(batches, size, 3 * size)
    return list(factors @ factors.mT)


def test_single_batches_keep_their_float32_products_and_no_more() -> None:
    state, wide = MinibatchCKA(), MinibatchCKA()
    for product in products(20):
        state.add(product, n=8, scale=0.3)
        wide.add(product.double(), n=8, scale=0.3)
    found, expected = state.compute(), wide.compute()
    assert (found.hsic.dtype, expected.hsic.dtype) == (torch.float32, torch.float64)
    assert found.value.dtype == found.standard_error.dtype == torch.float64
    assert torch.allclose(found.value, expected.value, rtol=0, atol=2e-7)
    assert torch.allclose(found.standard_error, expected.standard_error, rtol=0, atol=2e-7)
    assert torch.allclose(
        without_each_group(found.hsic), without_each_group(expected.hsic), rtol=0, atol=2e-7
    )


def test_groups_of_several_batches_add_up_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minibatch, "MAX_GROUPS", 4)
    monkeypatch.setattr(minibatch, "FEWEST_GROUPS", 4)
    batches = products(7)
    state = MinibatchCKA()
    for number, product in enumerate(batches):
        state.add(product, n=8)
        several = number >= 4
        assert state.compute().hsic.dtype == (torch.float64 if several else torch.float32)
    exact = 8 * torch.stack(batches).double()
    expected = torch.stack([exact[:2].sum(0), exact[2:4].sum(0), exact[4:6].sum(0), exact[6]])
    assert torch.equal(state.compute().hsic, expected)


def test_float64_products_among_float32_ones_make_all_float64() -> None:
    batches = products(6)
    batches[3] = batches[3].double()
    state = MinibatchCKA()
    for product in batches:
        state.add(product, n=4)
    found = state.compute()
    assert torch.equal(found.hsic, 4 * torch.stack([product.double() for product in batches]))


def test_float32_groups_are_kept_and_merged() -> None:
    batches = products(6)
    whole, one, other = MinibatchCKA(), MinibatchCKA(), MinibatchCKA()
    for number, product in enumerate(batches):
        whole.add(product, n=8)
        (one if number < 3 else other).add(product, n=8)
    kept = one.kept()
    assert kept["hsic"].dtype == torch.float32
    again = MinibatchCKA()
    again.add(batches[5], n=8)
    again.go_on(kept)
    merged = again.merge(other).compute()
    assert torch.equal(merged.value, whole.compute().value)
    assert torch.equal(merged.standard_error, whole.compute().standard_error)


@pytest.mark.parametrize("shape", [(0, 3), (3,), (2, 3, 4)])
def test_sums_of_any_shape(shape: tuple[int, ...]) -> None:
    groups = [torch.randn(shape) for _ in range(3)]
    expected = groups[0].double() + groups[1].double() + groups[2].double()
    assert torch.equal(minibatch._added(groups), expected)
