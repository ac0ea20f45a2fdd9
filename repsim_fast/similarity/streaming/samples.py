"""Measures that need all samples at once, for `compare`: features are collected batch by batch."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from repsim_fast.similarity.base.measure import Measure, get_measure, need_float64, options_of
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.store import GIB, FeatureStore, Spill
from repsim_fast.similarity.grid import within
from repsim_fast.similarity.inference import jackknife
from repsim_fast.similarity.streaming.accumulator import Estimate, NotFiniteError


class SampleAccumulator:
    """Any measure, from the features of all batches together.

    Memory: the features of all layers and samples, and then their factorisations, each up to half
    the budget; beyond it they go to temporary files that are mapped into memory.

    Args:
        measure: Name of a measure, or one with options.
        estimator: Passed on to measures by name that have one; others ignore it.
        precision: Must be None: these measures compute in float32, and in float64 where needed.
        capacity: Expected number of layers; not used.
        groups: Groups of samples of the jackknife for standard errors, which takes that many times
            as long; None for none.
        memory: Budget in bytes.

    Attributes:
        description: Options of the measure, for the result.
        reason: Why the first of the layers without a value has none.

    Raises:
        ValueError: Unknown measure, or a precision.
    """

    min_samples = 1
    any_feature_order = False
    only_queues = False

    def __init__(
        self,
        measure: str | Measure[Any],
        *,
        estimator: str | None = None,
        precision: str | None = None,
        capacity: int = 0,
        groups: int | None = None,
        memory: int = 8 * GIB,
    ) -> None:
        if precision is not None:
            raise ValueError(f"precision: expected None for measure {measure!r}, got {precision!r}")
        if isinstance(measure, str):
            plain = get_measure(measure)
            wanted = estimator and any(field.name == "estimator" for field in options_of(plain))
            measure = get_measure(measure, estimator=estimator) if wanted else plain
        self.measure = measure
        options = {field.name: getattr(measure, field.name) for field in options_of(measure)}
        given = [f"{name} {value}" for name, value in options.items() if value is not None]
        self.description = ", ".join(given) or "plain"
        self.reason = ""
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

    def estimate(self) -> Estimate:
        """Values of all pairs; NaN for layers for which the measure is undefined.

        Raises:
            UndefinedError: The measure is undefined for every layer.
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
        defined = [i for i, view in enumerate(views) if not isinstance(view, UndefinedError)]
        reasons = [view for view in views if isinstance(view, UndefinedError)]
        if not defined:
            raise reasons[0]
        self.reason = str(reasons[0]) if reasons else ""
        value = _spread(within(self.measure, [views[i] for i in defined]), defined, size)
        spill.close()
        standard_error = torch.full_like(value, math.nan)
        group_samples: tuple[int, ...] = ()
        left_out = None
        if self.groups is not None:
            known = [self._store.matrix(i) for i in defined]
            resampled = jackknife(self.measure, known, groups=self.groups)
            standard_error = _spread(resampled.standard_error, defined, size)
            left_out = _spread(resampled.resamples, defined, size)
            group_samples = tuple(
                len(range(g, self._n_samples, self.groups)) for g in range(self.groups)
            )
        undefined = tuple(sorted(set(range(size)) - set(defined)))
        return Estimate(
            value,
            standard_error,
            self._n_samples,
            self._n_batches,
            undefined,
            None,
            group_samples,
            left_out,
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
