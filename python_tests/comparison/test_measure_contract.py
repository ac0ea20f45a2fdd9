"""A measure by its name and as an object is the same program: numbers, errors, options, memory."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repsim_fast import SimilarityResult, compare
from repsim_fast.similarity import Info, Measure, get_measure, measure_names
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.streaming.gram import GramAccumulator
from repsim_fast.similarity.streaming.samples import SampleAccumulator, SampleMeasure


@pytest.fixture
def models(net_a: nn.Module, net_b: nn.Module) -> dict[str, nn.Module]:
    return {"a": net_a, "b": net_b}


def same(one: SimilarityResult, other: SimilarityResult) -> None:
    for name, value in vars(one).items():
        if name == "seconds":
            continue
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(other, name))
        else:
            assert value == getattr(other, name), name


@pytest.mark.parametrize(
    ("measure", "options"),
    [
        ("cka", {}),
        ("cka", {"passes": 2, "precision": "bfloat16"}),
        ("cka_rbf", {"jackknife": 4}),
        ("procrustes_distance", {"jackknife": 3}),
    ],
)
def test_the_same_result(
    models: dict[str, nn.Module], images: Tensor, measure: str, options: dict[str, Any]
) -> None:
    options = {"batch_size": 10, "maps": "pool", **options}
    by_name = compare(models, images, measure=measure, **options)
    same(by_name, compare(models, images, measure=get_measure(measure), **options))
    assert np.isfinite(by_name.standard_error).all()


@pytest.mark.parametrize("measure", ["cka", "cka_rbf"])
def test_the_same_estimator(models: dict[str, nn.Module], images: Tensor, measure: str) -> None:
    options: dict[str, Any] = {"batch_size": 10, "maps": "pool", "measure": measure}
    by_option = compare(models, images, **options, estimator="biased")
    biased = get_measure(measure, estimator="biased")
    same(by_option, compare(models, images, **{**options, "measure": biased}))
    same(by_option, compare(models, images, **{**options, "measure": biased}, estimator="biased"))
    unbiased = compare(models, images, **options)
    same(unbiased, compare(models, images, **options, estimator="unbiased"))
    assert np.abs(by_option.value - unbiased.value).max() > 1e-3


def test_estimators_that_contradict_are_refused(
    models: dict[str, nn.Module], images: Tensor
) -> None:
    biased = get_measure("cka", estimator="biased")
    with pytest.raises(ValueError, match=r"estimator: expected 'biased', that of CKA.* got 'unb"):
        compare(models, images, measure=biased, estimator="unbiased")
    for measure in ("svcca", get_measure("svcca"), "rv_coefficient"):
        with pytest.raises(ValueError, match=r"estimator: expected None for .*, which has none"):
            compare(models, images, measure=measure, estimator="unbiased")


@pytest.mark.parametrize(
    ("measure", "kept"),
    [("cka", False), (get_measure("cka"), False), ("svcca", True), (get_measure("svcca"), True)],
)
def test_the_same_memory(measure: str | Measure[Any], kept: bool) -> None:
    """Features of a batch take 256 KiB, its Gram 2 KiB."""
    model = nn.Linear(8, 2048)
    held: list[int] = []

    def batches() -> Iterator[Tensor]:
        for _ in range(8):
            yield torch.rand(32, 8)
            tensors = [o for o in gc.get_objects() if type(o) is Tensor]
            held.append(sum(t.nbytes for t in tensors))

    compare([model], batches(), measure=measure)
    assert (held[-1] - held[0] > 6 << 18) == kept


@pytest.mark.parametrize("name", measure_names())
def test_every_measure_has_a_streaming_form(name: str) -> None:
    kind = GramAccumulator if name == "cka" else SampleAccumulator
    assert type(get_measure(name).accumulator()) is kind


@dataclass(frozen=True)
class Fixed(SampleMeasure[int]):
    """A measure of somebody's own: the number of features over a fixed one."""

    info: ClassVar[Info] = Info(
        name="fixed",
        kind="similarity",
        formula="p / q",
        low=0.0,
        high=1.0,
        invariant_to=(),
        differentiable="no",
        cost="1; 1",
        source="here",
        symmetric=False,
    )
    over: float = 8.0

    def view(self, x: Prepared) -> int:
        return x.n_features

    def pairs(self, left: Sequence[int], right: Sequence[int], pairs: Pairs) -> Tensor:
        return torch.tensor([left[i] / self.over for i, _ in pairs])


def test_a_measure_of_ones_own(images: Tensor) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.Linear(4, 6))
    result = compare([model], images, measure=Fixed(over=10.0))
    np.testing.assert_allclose(result.value, [[0.4, 0.4], [0.6, 0.6]])
    assert (result.measure, result.estimator) == ("fixed", "over 10.0")


def test_what_is_no_measure(images: Tensor, net_a: nn.Module) -> None:
    with pytest.raises(TypeError, match="measure: expected a name or a Measure, got int"):
        compare([net_a], images, measure=3)  # type: ignore[call-overload]
    assert issubclass(Fixed, Measure)
