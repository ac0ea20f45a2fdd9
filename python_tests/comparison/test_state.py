"""Models that change as they run: every batch finds them as they came."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from python_tests.support.capture_networks import seeded
from repsim_fast import compare, record


class Drifting(nn.Module):
    """What it returns depends on all the images that it has seen."""

    seen: Tensor

    def __init__(self, change: Callable[[Drifting, Tensor], None]) -> None:
        super().__init__()
        self.layer, self.act = nn.Linear(6, 5), nn.ReLU()
        self.register_buffer("seen", torch.zeros(5))
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.layer(x) + self.seen)
        self.change(self, x)
        return x


def counted(model: Drifting, x: Tensor) -> None:
    model.seen += x.mean(0)


def uncounted(model: Drifting, x: Tensor) -> None:
    model.seen.data.add_(x.mean(0))


def replaced(model: Drifting, x: Tensor) -> None:
    model.seen = model.seen + x.mean(0)


CHANGES = [counted, uncounted, replaced]
IMAGES = torch.rand(40, 6, generator=torch.Generator().manual_seed(0))


def drifting(change: Callable[[Drifting, Tensor], None]) -> Drifting:
    torch.manual_seed(0)
    return Drifting(change).eval()


def said(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    with pytest.warns(UserWarning, match=r"'Drifting.*': its passes change its buffers \(Drifting"):
        return function(*args, **options)


@pytest.mark.parametrize("change", CHANGES)
def test_every_batch_finds_the_model_as_it_came(
    change: Callable[[Drifting, Tensor], None], tmp_path: Path
) -> None:
    model = drifting(change)
    still = drifting(lambda model, x: None)
    expected = compare({"Drifting": still}, IMAGES, batch_size=10)
    got = said(compare, {"Drifting": model}, IMAGES, batch_size=10)
    np.testing.assert_array_equal(got.value, expected.value)
    assert not model.seen.any()

    # Neither the order of the batches nor what is run beside it matters.
    batches = list(IMAGES.split(10))
    there = said(compare, {"Drifting": model}, batches)
    back = said(compare, {"Drifting": model}, batches[::-1])
    np.testing.assert_allclose(back.value, there.value, atol=1e-6)
    twice = said(compare, {"Drifting": model, "other": still}, IMAGES, batch_size=10)
    np.testing.assert_allclose(twice["Drifting", "other"].value, expected.value, atol=1e-6)
    recording = record(model, IMAGES, tmp_path / "r", batch_size=10, name="Drifting")
    np.testing.assert_array_equal(said(compare, [recording]).value, expected.value)


@pytest.mark.parametrize("change", CHANGES)
def test_what_stopped_goes_on_to_the_same(
    change: Callable[[Drifting, Tensor], None], tmp_path: Path
) -> None:
    expected = compare({"Drifting": drifting(lambda model, x: None)}, IMAGES, batch_size=10)
    model = drifting(change)

    def compared() -> Any:
        return compare({"Drifting": model}, IMAGES, batch_size=10, resume=tmp_path / "c", every=1)

    def recorded() -> Any:
        made = record(model, IMAGES, tmp_path / "r", batch_size=10, every=1, name="Drifting")
        return compare([made])

    for function in (compared, recorded):
        passes = iter(range(4))

        def fails(module: nn.Module, args: Any, left: Any = passes) -> None:
            if next(left, None) is None:
                raise KeyboardInterrupt

        with model.layer.register_forward_pre_hook(fails), pytest.raises(KeyboardInterrupt):
            function()
        assert not model.seen.any()
        np.testing.assert_array_equal(said(function).value, expected.value)


def test_norms_that_always_train() -> None:
    class Norm(nn.BatchNorm1d):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.batch_norm(
                x, self.running_mean, self.running_var, self.weight, self.bias, training=True
            )

    model = seeded(lambda: nn.Sequential(nn.Linear(6, 5), Norm(5))).eval()
    with pytest.warns(UserWarning, match="Norm.running_mean, Norm.running_var"):
        result = compare([model], IMAGES, batch_size=20)
    assert np.isfinite(result.value).all()
    assert not model[1].running_mean.any()


def test_nothing_is_said_of_others() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not compare([model], IMAGES, batch_size=10).notes
