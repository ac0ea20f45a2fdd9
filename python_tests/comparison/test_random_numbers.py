"""Models, transforms and data that draw random numbers: each from a stream of its own, so that
nobody's numbers depend on who else is compared, recorded, or was run before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from repsim_fast import compare, record


class Noisy(nn.Module):
    """Dropout that is never switched off."""

    def __init__(self, fail_at: int | None = None, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.layer, self.passes, self.fail_at = nn.Linear(12, 9), 0, fail_at

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        if self.passes == self.fail_at:
            raise RuntimeError("gone")
        noisy: Tensor = self.layer(nn.functional.dropout(x, 0.3, training=True))
        return noisy


class Augmented(Dataset[Tensor]):
    """Samples with noise that is drawn anew each time, in this process."""

    def __init__(self, n: int = 60) -> None:
        self.samples = torch.randn(n, 12, generator=torch.Generator().manual_seed(0))

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        return self.samples[index] + 0.1 * torch.randn(12)


def augmented() -> DataLoader[Tensor]:
    return DataLoader(Augmented(), 6, shuffle=True)


def shaken(x: Tensor, y: Tensor | None) -> Tensor:
    return x + torch.randn_like(x)


@pytest.mark.parametrize("inputs", [None, shaken])
def test_recordings_are_their_models(inputs: object, tmp_path: Path) -> None:
    models = {"a": Noisy(), "b": Noisy(seed=1), "plain": nn.Linear(12, 4)}
    live = compare(models, augmented(), inputs=inputs)
    turned = compare(dict(reversed(models.items())), augmented(), inputs=inputs)
    made = [record(m, augmented(), tmp_path / n, inputs=inputs) for n, m in models.items()]
    recorded = compare(made)
    for one, other in (("a", "b"), ("a", "a"), ("b", "plain")):
        want = live.between(one, other).value
        np.testing.assert_array_equal(recorded.between(one, other).value, want)
        np.testing.assert_allclose(turned.between(one, other).value, want, atol=1e-12)


def test_streams_are_different_ones() -> None:
    x = torch.randn(60, 12)
    options: dict[str, Any] = {"batch_size": 10, "shuffle": False}
    equal = compare({"one": Noisy(), "other": Noisy()}, x, **options).between("one", "other")
    assert equal.value[0, 0] < 0.95  # each with its own noise
    other_seed = compare({"one": Noisy(), "other": Noisy()}, x, seed=1, **options)
    assert other_seed.between("one", "other").value[0, 0] != equal.value[0, 0]


def test_a_recording_that_was_stopped_goes_on(tmp_path: Path) -> None:
    whole = record(Noisy(), augmented(), tmp_path / "whole")
    model = Noisy(fail_at=8)
    with pytest.raises(RuntimeError, match="gone"):
        record(model, augmented(), tmp_path / "parts", every=2)
    model.fail_at = None
    parts = record(model, augmented(), tmp_path / "parts", every=2)
    np.testing.assert_array_equal(compare([whole]).value, compare([parts]).value)


def test_a_comparison_that_was_stopped_goes_on(tmp_path: Path) -> None:
    want = compare({"a": Noisy(), "b": Noisy(seed=1)}, augmented()).value
    models = {"a": Noisy(), "b": Noisy(fail_at=8, seed=1)}
    with pytest.raises(RuntimeError, match="gone"):
        compare(models, augmented(), resume=tmp_path, every=2)
    models["b"].fail_at = None
    got = compare(models, augmented(), resume=tmp_path, every=2).value
    np.testing.assert_allclose(got, want, atol=1e-12)
