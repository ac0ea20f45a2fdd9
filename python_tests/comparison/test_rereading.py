"""A loader with a generator of its own is read in one order by all that is compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from python_tests.comparison.test_recordings import Counted, same
from repsim_fast import compare, compare_zoo, record

NET = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def _loader(images: Tensor, *, of_the_sampler: bool = False) -> DataLoader[Any]:
    samples, generator = TensorDataset(images), torch.Generator().manual_seed(5)
    if of_the_sampler:
        sampler = RandomSampler(samples, generator=generator)
        return DataLoader(samples, 10, sampler=sampler)
    return DataLoader(samples, 10, shuffle=True, generator=generator)


@pytest.mark.parametrize("of_the_sampler", [False, True])
def test_by_all_models_of_a_zoo(
    net_a: nn.Module, net_b: nn.Module, images: Tensor, of_the_sampler: bool
) -> None:
    models = {"a": net_a, "b": net_b, "c": NET}
    one, other = (_loader(images, of_the_sampler=of_the_sampler) for _ in range(2))
    same(compare(models, one), compare_zoo(models, other))
    # And on they go, as after one reading.
    same(compare(models, one), compare_zoo(models, other))


def test_again_after_an_interrupt(images: Tensor, tmp_path: Path) -> None:
    def stop() -> nn.Module:
        raise KeyboardInterrupt

    loader, first = _loader(images), Counted(NET)
    with pytest.raises(KeyboardInterrupt):
        compare_zoo({"a": first, "b": stop}, loader, tmp_path)
    passes = first.passes
    result = compare_zoo({"a": first, "b": NET}, loader, tmp_path)
    assert first.passes <= passes + 2  # of its four batches, which are there
    np.testing.assert_allclose(result.between("a", "b").value.diagonal(), 1, atol=1e-6)


def test_by_several_measures_of_a_recording(images: Tensor, tmp_path: Path) -> None:
    recorded = record(NET, _loader(images), tmp_path / "a", keep="features")
    options: dict[str, Any] = {"measure": ["rsa", "cka"], "jackknife": 0, "permutations": 0}
    found = compare([recorded, NET], _loader(images), **options)
    assert list(found) == ["rsa", "cka"]
