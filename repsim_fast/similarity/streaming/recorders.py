"""What keeps nothing but the current batch, for the one who writes it down."""

from __future__ import annotations

from typing import Literal, Protocol

from torch import Tensor

from repsim_fast.ops import Precision
from repsim_fast.similarity.base.accumulator import NotFiniteError, Taker
from repsim_fast.similarity.base.estimator import Estimator
from repsim_fast.similarity.streaming.gram_buffer import GramBuffer
from repsim_fast.similarity.streaming.samples import is_finite

Kept = Literal["grams", "features"]


class Recorder(Taker, Protocol):
    """Takes batches like a measure, and has what a recording keeps of the latest one."""

    products: set[str]
    """What Gram products were taken in so far."""

    @property
    def entries(self) -> list[Tensor]:
        """Of each layer its packed Gram (m,) or its features (n, p); valid until the next batch."""

    @property
    def scales(self) -> list[Tensor]:
        """Of each layer the norm of the features of one sample, in the dtype of its Gram."""


class GramRecorder(GramBuffer):
    """Packed centred Grams of a batch, as linear CKA needs them; see ``GramBuffer``."""

    @property
    def entries(self) -> list[Tensor]:
        """Of each layer its packed Gram (m,)."""
        return list(self.grams)

    def end_batch(self, n: int, *, of: int | None = None, number: int | None = None) -> None:
        """Refuse the batch if a Gram is not finite."""
        _check_finite(self.entries)


class FeatureRecorder:
    """Features of a batch, as measures need them that are of all samples at once."""

    description = "features"
    min_samples = 1
    any_feature_order = False
    samples_may_return = False
    capturable = False

    def __init__(self) -> None:
        self.products: set[str] = set()
        self.scales: list[Tensor] = []
        self._batch: dict[int, Tensor] = {}

    @property
    def entries(self) -> list[Tensor]:
        """Of each layer its features (n, p)."""
        return [self._batch[layer] for layer in sorted(self._batch)]

    def add(self, layer: int, features: Tensor) -> None:
        """Keep a copy of the features (n, p) of one layer."""
        self._batch[layer] = features.detach().clone()

    def repeat(self, layer: int, of: int) -> None:
        """Keep the features of another layer for this one too."""
        self._batch[layer] = self._batch[of]

    def end_batch(self, n: int, *, of: int | None = None, number: int | None = None) -> None:
        """Refuse the batch if something in it is not finite."""
        _check_finite(self.entries)


def recorder(
    keep: Kept, *, estimator: Estimator, precision: Precision | None, capacity: int
) -> Recorder:
    """What records Grams or features."""
    if keep == "features":
        return FeatureRecorder()
    return GramRecorder(estimator=estimator, precision=precision, capacity=capacity)


def _check_finite(entries: list[Tensor]) -> None:
    if bad := [layer for layer, entry in enumerate(entries) if not is_finite(entry)]:
        raise NotFiniteError(bad)
