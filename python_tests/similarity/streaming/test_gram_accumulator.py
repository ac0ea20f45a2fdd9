"""CKA from Grams of batches: buffers, precisions, and batches that are refused."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from repsim_fast.similarity.base.accumulator import NotFiniteError
from repsim_fast.similarity.streaming.gram import GramAccumulator


def make(capacity: int = 1) -> GramAccumulator:
    return GramAccumulator(estimator="unbiased", precision=None, capacity=capacity)


def features(n: int, seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(n, 6, generator=torch.Generator().manual_seed(seed)).to(dtype)


def test_more_layers_than_expected() -> None:
    tight, ample = make(1), make(50)
    for accumulator in (tight, ample):
        for n in (8, 8, 5, 8):
            for layer in range(7):
                accumulator.add(layer, features(n, layer))
            accumulator.end_batch(n)
    torch.testing.assert_close(tight.compute().value, ample.compute().value)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("precision", [None, "bfloat16"])
def test_features_by_address_and_by_operator(dtype: torch.dtype, precision: str | None) -> None:
    if dtype == torch.float64 and precision:
        pytest.skip("float64 features have float64 products")

    class Marked(Tensor):
        """Of no kind whose memory may be read."""

    def layouts(x: Tensor) -> list[Tensor]:
        strided = torch.stack([x, x], dim=-1)[..., 0]
        assert not strided.is_contiguous()
        return [x.reshape(8, 2, 3), strided, x.as_subclass(Marked)]

    by_address, other = (
        GramAccumulator(estimator="unbiased", precision=precision, capacity=3) for _ in range(2)
    )
    for batch in range(3):
        first, second, third = (features(8, 3 * batch + i, dtype) for i in range(3))
        for layer, x in enumerate((first, second, third)):
            by_address.add(layer, x)
            other.add(layer, layouts(x)[(layer + batch) % 3])
        by_address.end_batch(8)
        other.end_batch(8)
    assert torch.equal(by_address.compute().value, other.compute().value)


def test_a_refused_batch_leaves_no_trace() -> None:
    accumulator, clean = make(), make()
    for a in (accumulator, clean):
        a.add(0, features(8, 0))
        a.end_batch(8)
    accumulator.add(0, features(8, 1) * torch.nan)
    with pytest.raises(NotFiniteError) as caught:
        accumulator.end_batch(8)
    assert caught.value.layers == [0]
    for a in (accumulator, clean):
        a.add(0, features(8, 2))
        a.end_batch(8)
    found, expected = accumulator.compute(), clean.compute()
    torch.testing.assert_close(found.value, expected.value)
    torch.testing.assert_close(found.standard_error, expected.standard_error)
    assert (found.n_samples, found.n_batches) == (16, 2)


def test_layers_of_mixed_precision() -> None:
    accumulator = make()
    accumulator.add(0, features(8, 0))
    accumulator.add(1, features(8, 1, torch.float64))
    accumulator.add(2, features(8, 0, torch.bfloat16))
    accumulator.end_batch(8)
    value = accumulator.compute().value
    torch.testing.assert_close(value.diagonal(), torch.ones(3, dtype=torch.float64))
    assert 0.99 < value[0, 2] < 1
