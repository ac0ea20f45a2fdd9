"""Measures that need all samples at once: features are collected batch by batch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, NamedTuple

import torch
from torch import Tensor

from repsim_fast._core.processes import Processes
from repsim_fast.ops import Precision
from repsim_fast.similarity.base.accumulator import (
    BY_CONSTRUCTION,
    SEVERAL_ROWS,
    Accumulator,
    NotFiniteError,
    Similarities,
)
from repsim_fast.similarity.base.measure import (
    Measure,
    View,
    caution_of_all,
    check_count,
    need_float64,
    options,
)
from repsim_fast.similarity.base.pairs import all_pairs, filled
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.store import GIB, FeatureStore, Spill
from repsim_fast.similarity.grid import within
from repsim_fast.similarity.inference import jackknife_error, null_values, permuted

# What is done without being asked for where it is expected to take at most so many seconds.
GROUPS = 10
PERMUTATIONS = 10
AT_MOST = 60.0

STOPPED = "the comparison stopped before"
NOT_ASKED = f"none were asked for; jackknife={GROUPS} gives them"
ONE_BATCH = (
    "all samples were one batch and have several rows each; several batches, by a smaller "
    "batch_size, give standard errors"
)


class SampleMeasure(Measure[View]):
    """A measure that needs the features of all samples at once, as most do."""

    def accumulator(
        self,
        *,
        precision: Precision | None = None,
        jackknife: int | None = None,
        permutations: int | None = None,
        seed: int = 0,
        capacity: int = 0,
    ) -> Accumulator:
        """One that keeps features, in files beyond 4 GiB; see `Measure.accumulator`.

        By itself it has standard errors of ten groups of samples and chance levels of ten
        permutations, each where that is expected to take a minute at most.
        """
        if precision is not None:
            raise ValueError(
                f"precision: expected None for {self.info.name}, which computes in float32, and in "
                f"float64 where needed, got {precision!r}"
            )
        return SampleAccumulator(self, groups=jackknife, permutations=permutations, seed=seed)


class SampleAccumulator:
    """Any measure, from the features of all batches together.

    Memory: the features of all layers and samples, and then their factorisations, each up to half
    the budget; beyond it they go to temporary files that are mapped into memory. So do those
    without each group of samples, one group after the other, and those of each permutation.

    Args:
        measure: The measure, with its options.
        groups: Groups of samples of the jackknife for standard errors, which takes that many times
            as long; 0 for none, None for ten where that takes at most a minute.
        permutations: Random orders of the samples of one layer of each pair, which give the chance
            level, each in the time of comparing all pairs; 0 and None as for groups.
        seed: Seed of the permutations.
        memory: Budget in bytes.
    """

    min_samples = 1
    any_feature_order = False
    samples_may_return = False
    capturable = False
    centering = None

    def __init__(
        self,
        measure: Measure[Any],
        *,
        groups: int | None = 0,
        permutations: int | None = 0,
        seed: int = 0,
        memory: int = 8 * GIB,
    ) -> None:
        if groups is not None:
            check_count("jackknife", groups, 0, 2**31)
        if groups == 1:
            raise ValueError("jackknife: expected at least 2 groups, or 0 for none, got 1")
        if permutations is not None:
            check_count("permutations", permutations, 0, 2**31)
        self.measure = measure
        given = [f"{name} {value}" for name, value in options(measure).items() if value is not None]
        self.description = ", ".join(given) or "plain"
        self.groups = groups
        self.permutations = permutations
        self.seed = seed
        self._memory = memory // 2
        self._store = FeatureStore(memory=self._memory)
        self._batch: dict[int, Tensor] = {}
        self._batches: list[int] = []  # rows of each
        self._numbers: list[int] = []  # of each, ascending
        self._rows_are_samples = True

    def use_samples_of(self, other: SampleAccumulator) -> None:
        """Work on the samples that another accumulator keeps."""
        self._store, self._batches = other._store, other._batches
        self._numbers = other._numbers
        self._rows_are_samples = other._rows_are_samples

    def add(self, layer: int, features: Tensor) -> None:
        """Keep a copy of the features (n, p) of one layer."""
        self._batch[layer] = features.detach().clone()

    def repeat(self, layer: int, of: int) -> None:
        """Keep the features of another layer for this one too."""
        self._batch[layer] = self._batch[of]

    def add_grams(self, first: int, grams: Tensor, scales: Sequence[Tensor]) -> None:
        """Raises TypeError: no Gram of a batch tells what all samples together have."""
        name = self.measure.info.name
        raise TypeError(f"{name} takes features, got Grams of layers from {first} on")

    def end_batch(self, n: int, *, of: int | None = None, number: int | None = None) -> None:
        """Store the batch, unless something in it is not finite."""
        batch, self._batch = self._batch, {}
        bad = [layer for layer, features in batch.items() if not is_finite(features)]
        if bad:
            raise NotFiniteError(sorted(bad))
        for layer, features in batch.items():
            self._store.append(layer, features, copy=False)
        self._batches.append(n)
        following = self._numbers[-1] + 1 if self._numbers else 0
        self._numbers.append(following if number is None else number)
        self._rows_are_samples &= of in (None, n)

    def pool(self, layers: Sequence[int], processes: Processes) -> None:
        """Send the features of these layers to the first process, which stores all in the order of
        the batches, see `Accumulator.pool`."""
        found = processes.gather((self._numbers, self._batches, self._rows_are_samples))
        rows = {n: r for some, sizes, _ in found for n, r in zip(some, sizes, strict=True)}
        order = sorted(rows)
        pooled = FeatureStore(memory=self._memory)
        failure: Exception | None = None
        for new, layer in enumerate(layers):
            own: Sequence[Tensor] = ()
            if self._batches:
                own = torch.split(self._store.matrix(layer), self._batches)
            came: dict[int, Tensor] = {}
            following = iter(order)
            awaited = next(following, None)
            # One batch of each process at a time: a layer of all may exceed the memory.
            for i in range(max(len(some) for some, *_ in found)):
                part = own[i].cpu().clone() if i < len(own) else None
                for rank, sent in enumerate(processes.gather_in_first(part)):
                    if sent is not None:
                        came[found[rank][0][i]] = sent.to(own[0].device) if own else sent
                try:
                    while awaited in came and failure is None:
                        pooled.append(new, came.pop(awaited), copy=False)
                        awaited = next(following, None)
                except Exception as error:
                    failure = error  # raised when all is taken, for which the others wait
                if failure is not None:
                    came.clear()
        if failure is not None:
            raise failure
        self._store.close()
        self._store, self._numbers = pooled, order
        self._batches = [rows[number] for number in order]
        self._rows_are_samples = all(are for *_, are in found)

    def compute(self, *, bare: bool = False) -> Similarities:
        """Values of all pairs; NaN for layers for which the measure is undefined.

        Args:
            bare: Without standard errors and chance levels, as after an interruption.

        Raises:
            UndefinedError: The measure is undefined for every layer.
            ValueError: More groups to leave out than there are, or permutations of what cannot be
                permuted.
        """
        start = perf_counter()
        group = None if bare else self._group_of_rows()
        layers = [self._layer(i) for i in range(len(self._store.keys()))]
        wide = need_float64(layers)
        del layers
        spill = Spill(self._memory)
        views = self._views(spill, wide=wide)
        if not views.known:
            raise views.undefined[0]
        known = list(views.known.values())
        middle = perf_counter()
        value = views.spread(within(self.measure, known))
        end = perf_counter()
        caution = caution_of_all(self.measure, known, known)
        chance, note = (None, STOPPED) if bare else self._chance(views, end - middle)
        spill.close()
        del known
        errors = _Errors(STOPPED) if bare else self._errors(views, group, end - start, wide=wide)
        return Similarities(
            value,
            torch.full_like(value, math.nan) if errors.error is None else errors.error,
            sum(self._batches),
            len(self._batches),
            undefined={i: str(reason) for i, reason in views.undefined.items()},
            no_error=errors.reason,
            no_error_of=errors.reason_of,
            chance=chance,
            chance_note=note,
            notes=(caution,) if caution else (),
            left_out=errors.left_out,
            group_samples=errors.group_samples,
        )

    def _layer(self, number: int, rows: Tensor | None = None) -> Prepared:
        layer = Prepared(self._store.matrix(number), name="features")
        return layer if rows is None else layer.take(rows)

    def _views(self, spill: Spill, *, wide: bool, rows: Tensor | None = None) -> _Views:
        """Views of all layers, of all samples or of those of a resample."""
        known: dict[int, Any] = {}
        undefined: dict[int, UndefinedError] = {}
        size = len(self._store.keys())
        for i in range(size):
            # Each is let go of once its view is there, and with it the rest of what was factorised.
            layer = self._layer(i, rows)
            try:
                known[i] = spill.keep(self.measure.view(layer.double() if wide else layer))
            except UndefinedError as error:
                undefined[i] = error
        return _Views(known, undefined, size)

    def _group_of_rows(self) -> Tensor | None:
        """Number (n,) of the group that each row belongs to; None where none are to be left out.

        Neighbours are in different groups, so that sorted samples stay balanced; but rows of one
        sample, such as its positions, must be left out together, and with them their batch.
        """
        n = sum(self._batches)
        if self._rows_are_samples:
            count, what = n, "samples"
            independent = torch.arange(n)
        else:
            count, what = len(self._batches), "batches, of samples with several rows"
            independent = torch.arange(count).repeat_interleave(torch.tensor(self._batches))
        groups = min(GROUPS, count) if self.groups is None else self.groups
        if groups > count:
            raise ValueError(f"jackknife: expected at most the {count} {what}, got {groups}")
        return independent % groups if groups >= 2 else None

    def _errors(
        self, views: _Views, group: Tensor | None, seconds: float, *, wide: bool
    ) -> _Errors:
        """Standard errors from the values without each group of rows."""
        if group is None:
            return _Errors(NOT_ASKED if self.groups == 0 else ONE_BATCH)
        members = torch.bincount(group)
        groups = len(members)
        if self.groups is None and groups * seconds > AT_MOST:
            return _Errors(
                f"those of {groups} groups of samples would take about {groups * seconds:.0f} s; "
                f"jackknife={groups} gives them"
            )
        if len(group) - int(members.max()) < self.measure.min_samples:
            return _Errors(f"{len(group)} samples are too few to leave some out; use more")
        try:
            found = [self._without(group == g, wide=wide) for g in range(groups)]
        except ValueError as error:
            if self.groups is not None:
                raise
            return _Errors(f"without some of the samples, {error}")
        reason_of = {
            i: f"without some of the samples, {reason}; use more samples"
            for _, undefined in found
            for i, reason in undefined.items()
            if i in views.known
        }
        values = torch.stack([value for value, _ in found])
        return _Errors("", reason_of, jackknife_error(values), values, tuple(members.tolist()))

    def _without(self, left_out: Tensor, *, wide: bool) -> tuple[Tensor, dict[int, UndefinedError]]:
        """Values (L, L) without some rows, and why layers have none."""
        spill = Spill(self._memory)
        views = self._views(spill, wide=wide, rows=(~left_out).nonzero().flatten())
        value = views.spread(within(self.measure, list(views.known.values())))
        spill.close()
        return value, views.undefined

    def _chance(self, views: _Views, seconds: float) -> tuple[Tensor | None, str]:
        """Mean values of all pairs (L, L) over permutations, and how they were found or why not."""
        count, level = self.permutations, self.measure.known_chance
        if count == 0:
            return None, f"none was asked for; permutations={PERMUTATIONS} gives it"
        if not self._rows_are_samples:
            return None, SEVERAL_ROWS
        known = list(views.known.values())
        if count is None and level is not None:
            return views.spread(torch.full((len(known),) * 2, level)), BY_CONSTRUCTION
        if count is None and PERMUTATIONS * seconds > AT_MOST:
            return None, (
                f"{PERMUTATIONS} permutations would take about {PERMUTATIONS * seconds:.0f} s; "
                f"permutations={PERMUTATIONS} gives it"
            )
        mirrored = self.measure.info.symmetric
        pairs = all_pairs(len(known), len(known), mirrored=mirrored)
        orders = permuted(sum(self._batches), PERMUTATIONS if count is None else count, self.seed)
        nulls = null_values(self.measure, known, known, pairs, orders, memory=self._memory)
        try:
            null = torch.cat([some.detach().cpu() for some in nulls])
        except ValueError as error:
            if count is not None:
                raise
            return None, str(error)
        empty = null.new_empty(len(known), len(known))
        levels = filled(empty, pairs, null.mean(dim=0), mirrored=mirrored)
        return views.spread(levels), f"mean over {len(null)} random orders of the samples"


class _Views(NamedTuple):
    """Views of layers by number, and why others have none."""

    known: dict[int, Any]
    undefined: dict[int, UndefinedError]
    size: int

    def spread(self, values: Tensor) -> Tensor:
        """Matrix (size, size) of the values of pairs of layers with a view, NaN elsewhere."""
        result = torch.full((self.size, self.size), math.nan, dtype=torch.float64)
        chosen = torch.tensor(list(self.known), dtype=torch.int64)
        result[chosen[:, None], chosen[None, :]] = values.double().cpu()
        return result


@dataclass(frozen=True)
class _Errors:
    """Standard errors (L, L), or why there are none, of all layers or of some."""

    reason: str
    reason_of: Mapping[int, str] = field(default_factory=dict)
    error: Tensor | None = None
    left_out: Tensor | None = None
    group_samples: tuple[int, ...] = ()


def is_finite(features: Tensor) -> bool:
    """Whether no number is NaN or Inf."""
    low, high = torch.aminmax(features)  # NaN propagates
    return bool(torch.isfinite(low) & torch.isfinite(high))
