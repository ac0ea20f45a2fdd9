"""Measures that need all samples at once: features are collected batch by batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from repsim_fast.ops import Precision
from repsim_fast.similarity.base.accumulator import Accumulator, NotFiniteError, Similarities
from repsim_fast.similarity.base.measure import (
    Measure,
    View,
    need_float64,
    options,
    warn_of_caution,
)
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.store import GIB, FeatureStore, Spill
from repsim_fast.similarity.grid import within
from repsim_fast.similarity.inference import jackknife


class SampleMeasure(Measure[View]):
    """A measure that needs the features of all samples at once, as most do."""

    def accumulator(
        self,
        *,
        precision: Precision | None = None,
        jackknife: int | None = None,
        capacity: int = 0,
    ) -> Accumulator:
        """One that keeps features, in files beyond 4 GiB; see `Measure.accumulator`."""
        if precision is not None:
            raise ValueError(
                f"precision: expected None for {self.info.name}, which computes in float32, and in "
                f"float64 where needed, got {precision!r}"
            )
        if jackknife is not None and not isinstance(jackknife, int):
            raise TypeError(f"jackknife: expected an int, got {type(jackknife).__name__}")
        if jackknife is not None and jackknife < 2:
            raise ValueError(f"jackknife: expected at least 2 groups, got {jackknife}")
        return SampleAccumulator(self, groups=jackknife)


class SampleAccumulator:
    """Any measure, from the features of all batches together.

    Memory: the features of all layers and samples, and then their factorisations, each up to half
    the budget; beyond it they go to temporary files that are mapped into memory.

    Args:
        measure: The measure, with its options.
        groups: Groups of samples of the jackknife for standard errors, which takes that many times
            as long; None for none.
        memory: Budget in bytes.
    """

    min_samples = 1
    any_feature_order = False
    samples_may_return = False
    capturable = False

    def __init__(
        self, measure: Measure[Any], *, groups: int | None = None, memory: int = 8 * GIB
    ) -> None:
        self.measure = measure
        given = [f"{name} {value}" for name, value in options(measure).items() if value is not None]
        self.description = ", ".join(given) or "plain"
        self.groups = groups
        self._memory = memory // 2
        self._store = FeatureStore(memory=self._memory)
        self._batch: dict[int, Tensor] = {}
        self._n_samples = 0
        self._n_batches = 0

    def add(self, layer: int, features: Tensor) -> None:
        """Keep a copy of the features (n, p) of one layer."""
        self._batch[layer] = features.detach().clone()

    def repeat(self, layer: int, of: int) -> None:
        """Keep the features of another layer for this one too."""
        self._batch[layer] = self._batch[of]

    def end_batch(self, n: int) -> None:
        """Store the batch, unless something in it is not finite."""
        batch, self._batch = self._batch, {}
        bad = [layer for layer, features in batch.items() if not _finite(features)]
        if bad:
            raise NotFiniteError(sorted(bad))
        for layer, features in batch.items():
            self._store.append(layer, features, copy=False)
        self._n_samples += n
        self._n_batches += 1

    def compute(self) -> Similarities:
        """Values of all pairs; NaN for layers for which the measure is undefined.

        Raises:
            UndefinedError: The measure is undefined for every layer.
            ValueError: More groups to leave out than samples.
        """
        if self.groups is not None and self.groups > self._n_samples:
            raise ValueError(
                f"jackknife: expected at most the {self._n_samples} samples, got {self.groups}"
            )
        size = len(self._store.keys())
        spill = Spill(self._memory)
        layers = [Prepared(self._store.matrix(i), name="features") for i in range(size)]
        wide = need_float64(layers)
        # Each is let go of once its view is there, and with it the rest of what was factorised.
        views = [self._view(layers.pop(0), spill, wide=wide) for _ in range(size)]
        undefined = {i: view for i, view in enumerate(views) if isinstance(view, UndefinedError)}
        defined = [i for i in range(size) if i not in undefined]
        if not defined:
            raise undefined[0]
        known = [views[i] for i in defined]
        if self.groups is None:  # otherwise the jackknife does
            warn_of_caution(self.measure, known, known, stacklevel=3)
        value = _spread(within(self.measure, known), defined, size)
        spill.close()
        error, left_out = self._jackknife(defined, size)
        groups = () if self.groups is None else range(self.groups)
        return Similarities(
            value,
            torch.full_like(value, math.nan) if error is None else error,
            self._n_samples,
            self._n_batches,
            undefined={i: str(reason) for i, reason in undefined.items()},
            no_error="no jackknife was asked for" if error is None else "",
            left_out=left_out,
            group_samples=tuple(len(range(g, self._n_samples, len(groups))) for g in groups),
        )

    def _jackknife(self, defined: list[int], size: int) -> tuple[Tensor | None, Tensor | None]:
        """Standard errors (size, size), and values (groups, size, size) without each group."""
        if self.groups is None:
            return None, None
        known = [self._store.matrix(i) for i in defined]
        resampled = jackknife(self.measure, known, groups=self.groups)
        return (
            _spread(resampled.standard_error, defined, size),
            _spread(resampled.resamples, defined, size),
        )

    def _view(self, layer: Prepared, spill: Spill, *, wide: bool) -> Any:
        """View of a layer, or the reason why there is none."""
        try:
            return spill.keep(self.measure.view(layer.double() if wide else layer))
        except UndefinedError as error:
            return error


def _spread(
    values: Tensor,  # (..., len(numbers), len(numbers))
    numbers: list[int],
    size: int,
) -> Tensor:
    """Matrices (..., size, size), NaN except for the rows and columns of these numbers."""
    result = torch.full((*values.shape[:-2], size, size), math.nan, dtype=torch.float64)
    chosen = torch.tensor(numbers)
    result[..., chosen[:, None], chosen[None, :]] = values.cpu()
    return result


def _finite(features: Tensor) -> bool:
    low, high = torch.aminmax(features)  # NaN propagates
    return bool(torch.isfinite(low) & torch.isfinite(high))
