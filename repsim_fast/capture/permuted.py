"""Some samples in another order, or one of them replaced, tell whether rows go with the samples.

A small batch in which a sample comes twice may hide it: one whose sentences are all as long is in
the order in which a model sorts by length, and one that an expert is given as a whole is in order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.nested import tensors_in
from repsim_fast.capture.samples import Place, UnfitError, by_sample, closer, differing_rows

Pass = Callable[[Sequence[int], Callable[[str, Tensor], None]], None]
"""Runs a model on the samples of these numbers, and gives what its layers return."""

# Samples that are looked at, and numbers of what a layer returns for each.
_SAMPLES = 16
_NUMBERS = 2048


@dataclass
class Permuted:
    """What layers do with samples in another order.

    Attributes:
        moved: Layers whose rows do not move as the samples do, and why.
        alone: Of the layers asked for, those where a row changes with its own sample only.
        with_others: Those where a row changes with its own sample and with others.
    """

    moved: dict[str, str] = field(default_factory=dict)
    alone: set[str] = field(default_factory=set)
    with_others: set[str] = field(default_factory=set)


def look_at_orders(
    run_on: Pass, inputs: Any, n: int, places: Mapping[str, Place], doubtful: Sequence[str]
) -> Permuted:
    """Run a model on different samples, in two orders; and with one replaced where that tells more.

    Args:
        run_on: Runs the model, with the same random numbers each time.
        inputs: The inputs of a batch.
        n: Samples in it.
        places: Where layers seem to have their samples.
        doubtful: Layers of which it is not enough that rows move as the samples do.
    """
    picks = _different_samples(inputs, n)
    m = len(picks)
    order = torch.randperm(m, generator=torch.Generator().manual_seed(m)).tolist()
    found = Permuted()

    def rows_on(picks: Sequence[int], layers: Mapping[str, Place]) -> dict[str, Tensor]:
        rows: dict[str, Tensor] = {}

        def look(name: str, x: Tensor) -> None:
            if name in layers:
                try:
                    rows[name] = _rows(x, layers[name], m)
                except UnfitError as error:
                    found.moved[name] = str(error)

        run_on(picks, look)
        return rows

    one = rows_on(picks, places)
    other = rows_on([picks[i] for i in order], places)
    for name in one.keys() & other.keys():
        a, b = one[name], other[name]
        if a.shape != b.shape or closer([(a[order], b)], [(a, a.roll(1, 0))]) is False:
            found.moved[name] = "rows do not change their order as samples do"
    unsure = {name: places[name] for name in {*doubtful, *found.moved} if name in one}
    if unsure:
        own, others = dict.fromkeys(unsure, True), dict.fromkeys(unsure, False)
        for i in range(m):
            replaced = [*picks]
            replaced[i] = picks[(i + m // 2) % m]
            again = rows_on(replaced, unsure)
            for name in unsure:
                changed = differing_rows(one[name], again.get(name))
                own[name] &= bool(changed[i])
                changed[i] = False
                others[name] |= bool(changed.any())
        found.alone = {name for name in unsure if own[name] and not others[name]}
        found.with_others = {name for name in unsure if own[name] and others[name]}
    return found


def _rows(x: Tensor, place: Place, m: int) -> Tensor:
    """Some of the numbers of each of m samples, evenly spread."""
    if x.ndim == 0:
        raise UnfitError("a single number")
    x = by_sample(x, place, m, None)
    if len(x) != m:
        raise UnfitError(f"{len(x)} rows for {m} samples")
    x = x.reshape(m, -1)
    return x.detach()[:, :: max(1, x.shape[1] // _NUMBERS)].clone()


def _different_samples(inputs: Any, n: int) -> list[int]:
    """Numbers of samples: the longest and shortest, the largest and smallest, others between."""
    extremes: list[int] = []
    for x in tensors_in(inputs):
        if x.ndim and len(x) == n and x.numel() and not x.is_complex():
            rows = x.detach().reshape(n, -1)
            for size in (rows.count_nonzero(1), rows.double().nan_to_num().norm(dim=1)):
                extremes += [int(size.argmin()), int(size.argmax())]
    evenly = [i * n // _SAMPLES for i in range(_SAMPLES)]
    return sorted(list(dict.fromkeys([*extremes[: _SAMPLES // 2], *evenly]))[:_SAMPLES])
