"""Whether samples come in an order of their own, which estimates from batches cannot undo."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

# Inputs: two samples of one batch are correlated by at least `_SHARE`, and a random order would
# show such differences between batches by this chance at most.
_FALSE_ALARMS = 1e-8
_PROJECTIONS = 16
# Numbers of one sample that are looked at, evenly spread: enough to see, cheap to multiply.
_LOOKED_AT = 2048
# Labels: two samples of one batch share theirs more often than any two samples do, by this part of
# the way to always, and by so many standard deviations of random orders.
_SHARE = 0.02
_DEVIATIONS = 8.0
_ORDERS = 50


class OrderCheck:
    """Looks for differences between batches that samples in random order would not have.

    Of labels: how often two samples of one batch share theirs, against random orders. Of inputs:
    one-way analysis of variance of random projections with batches as groups, where under a random
    order F = mean square between batches / mean square within them is about 1.

    Example:
        >>> import torch
        >>> from repsim_fast.data.order import OrderCheck
        >>> check = OrderCheck()
        >>> for label in range(10):
        ...     check.add(torch.randn(32, 5), torch.full((32,), label))
        >>> check.sorted_by
        'labels'
    """

    def __init__(self) -> None:
        self._labels: list[Tensor] = []
        self._inputs = _Variance()
        self._projection: Tensor | None = None

    def add(self, x: Any, y: Tensor | None) -> None:
        """Look at a batch: inputs (n, ...) if they are a tensor, labels (n,) if there are any."""
        if isinstance(y, Tensor) and y.ndim == 1 and not y.is_floating_point():
            self._labels.append(y.detach().cpu())
        if isinstance(x, Tensor) and not x.is_complex():
            self._inputs.add(self._projected(x.detach()))

    @property
    def sorted_by(self) -> str | None:
        """ "labels" or "samples" where they are visibly sorted, otherwise None."""
        if _labels_differ(self._labels):
            return "labels"
        return "samples" if self._inputs.differs() else None

    def _projected(self, x: Tensor) -> Tensor:
        rows = x.reshape(len(x), -1)
        rows = rows[:, :: max(1, math.ceil(rows.shape[1] / _LOOKED_AT))].cpu().double()
        if self._projection is None or len(self._projection) != rows.shape[1]:
            # Inputs of another size, such as sentences padded to another length, start anew.
            self._inputs = _Variance()
            generator = torch.Generator().manual_seed(0)
            self._projection = torch.randn(
                rows.shape[1], _PROJECTIONS, generator=generator, dtype=torch.float64
            )
        return rows.nan_to_num(0.0, 0.0, 0.0) @ self._projection


def _labels_differ(batches: list[Tensor]) -> bool:
    """Whether labels ascend, or keep together in batches by more than chance."""
    if len(batches) < 2:
        return False
    _, labels, counts = torch.unique(torch.cat(batches), return_inverse=True, return_counts=True)
    orders = torch.lgamma(torch.tensor(len(labels) + 1.0)) - torch.lgamma(counts + 1.0).sum()
    if orders > -math.log(_FALSE_ALARMS) and bool((labels.diff() >= 0).all()):
        return True
    batch = torch.arange(len(batches)).repeat_interleave(torch.tensor([len(b) for b in batches]))
    always = _agreement(torch.zeros_like(labels), batch)
    by_chance = _agreement(labels, torch.zeros_like(batch)) / _agreement(batch * 0, batch * 0)
    if always == 0 or by_chance == 1:
        return False
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.tensor(
        [
            _agreement(labels[torch.randperm(len(labels), generator=generator)], batch)
            for _ in range(_ORDERS)
        ]
    )
    found = _agreement(labels, batch)
    share = (found / always - by_chance) / (1 - by_chance)
    return bool(share > _SHARE and found > shuffled.mean() + _DEVIATIONS * shuffled.std())


def _agreement(labels: Tensor, batch: Tensor) -> float:
    """Pairs of samples of one batch with the same label."""
    counts = torch.unique(batch * (labels.max() + 1) + labels, return_counts=True)[1].double()
    return float((counts * (counts - 1)).sum())


class _Variance:
    """Sums for an analysis of variance of several variables, fed group by group."""

    def __init__(self) -> None:
        self._n = 0
        self._groups = 0
        self._sum = self._squares = self._between = torch.zeros(0, dtype=torch.float64)
        self._origin = self._sum

    def add(self, values: Tensor) -> None:
        """Add one group (n, variables)."""
        if len(values) == 0:
            return
        if self._groups == 0:
            self._origin = values.mean(0)  # differences from it do not cancel
        values = values - self._origin
        total = values.sum(0)
        self._sum = self._sum + total if self._groups else total
        squares, between = values.square().sum(0), total.square() / len(values)
        self._squares = self._squares + squares if self._groups else squares
        self._between = self._between + between if self._groups else between
        self._n += len(values)
        self._groups += 1

    def differs(self) -> bool:
        """Whether some variable differs between groups by more than chance."""
        from scipy.stats import f as f_distribution  # takes a while

        free, left = self._groups - 1, self._n - self._groups
        if free < 1 or left < 1:
            return False
        overall = self._sum.square() / self._n
        between = (self._between - overall) / free
        within = (self._squares - self._between) / left
        varies = (self._squares - overall) > 1e-12 * self._squares
        if not bool(varies.any()):
            return False
        ratio = between[varies] / within[varies].clamp_min(torch.finfo(torch.float64).tiny)
        size = self._n / self._groups
        correlation = (ratio - 1) / (ratio + size - 1)  # of two samples of one batch
        chance = f_distribution.sf(ratio.numpy(), free, left)
        return bool(correlation.mean() > _SHARE and chance.min() * len(ratio) < _FALSE_ALARMS)
