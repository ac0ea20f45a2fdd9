"""Whether samples come in an order of their own, which estimates from batches cannot undo."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.inputs import LABEL_NAMES
from repsim_fast._core.nested import readable

from .sketch import chunk_sums, distribution

# What depends on the length to which a batch was padded, and not on its samples alone.
_NO_CONTENT = ("mask", "position", "token_type")

# Inputs: two samples of one batch are correlated by at least `_SHARE` in the mean over what is
# looked at, or by `_PATCH` in a part of it, and a random order would show such differences between
# batches by this chance at most, were numbers normal.
_FALSE_ALARMS = 1e-8
_PATCH = 0.1
# Numbers that few samples have, other than zero say, come together by chance too often for that.
_SAMPLES = 10
# Labels: two samples of one batch share theirs more often than any two samples do, by this part of
# the way to always. Labels and inputs: by so many standard deviations of random orders.
_SHARE = 0.02
_DEVIATIONS = 8.0
_ORDERS = 50


class OrderCheck:
    """Looks for differences between batches that samples in random order would not have.

    Of labels: how often two samples of one batch share theirs, against random orders. Of inputs:
    one-way analysis of variance of a sketch of each sample with batches as groups, where under a
    random order F = mean square between batches / mean square within them is about 1, and where it
    is not, against random orders. A sketch takes a multiplication for each number of a sample and
    16 cosines for each of at most 512 of them, and is kept: at most 81 numbers a sample.

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
        self._inputs: dict[str, _Sketches] = {}

    def add(self, x: Any, y: Tensor | None) -> None:
        """Look at a batch: inputs (n, ...), a tensor or a mapping of them, and labels (n,) if there
        are any."""
        if isinstance(y, Tensor) and y.ndim == 1 and not y.is_floating_point():
            self._labels.append(y.detach().cpu())
        for name, part in _contents(x).items():
            if not readable(part):
                continue
            self._inputs.setdefault(name, _Sketches()).add(part.detach())

    @classmethod
    def joined(cls, parts: Sequence[OrderCheck]) -> OrderCheck:
        """What one would be that had looked at the batches of all, of each part one in turn."""
        whole = cls()
        whole._labels = _in_turn([part._labels for part in parts])
        for name in dict.fromkeys(name for part in parts for name in part._inputs):
            sketches = [part._inputs[name] for part in parts if name in part._inputs]
            whole._inputs[name] = _Sketches.joined(sketches)
        return whole

    @property
    def sorted_by(self) -> str | None:
        """ "labels" or "samples" where they are visibly sorted, otherwise None."""
        if _labels_differ(self._labels):
            return "labels"
        return "samples" if any(part.differ() for part in self._inputs.values()) else None


def _contents(x: Any) -> dict[str, Tensor]:
    """What tells of samples: no labels, no masks, no numbers of samples."""
    if not isinstance(x, Mapping):
        return {"": x} if isinstance(x, Tensor) and not x.is_complex() else {}
    return {
        name: part
        for name, part in x.items()
        if isinstance(part, Tensor)
        and part.ndim > 0
        and (part.is_floating_point() or (part.ndim > 1 and not part.is_complex()))
        and name not in LABEL_NAMES
        and not any(word in str(name) for word in _NO_CONTENT)
    }


class _Sketches:
    """Sketches of the samples of all batches: sums over chunks where all samples have one size."""

    def __init__(self) -> None:
        self._size: int | None = None
        self._sums: list[Tensor] | None = []
        self._distributions: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        if x.numel() == 0:
            return
        rows = x.reshape(len(x), -1).float()
        if self._size not in (None, rows.shape[1]):
            self._sums = None
        self._size = rows.shape[1]
        if self._sums is not None:
            self._sums.append(chunk_sums(rows).cpu())
        found = distribution(rows)
        if x.is_floating_point():  # how many there are tells of tokens alone
            found = found[:, :-1]
        self._distributions.append(found.cpu())

    @classmethod
    def joined(cls, parts: Sequence[_Sketches]) -> _Sketches:
        whole = cls()
        sizes = {part._size for part in parts if part._distributions}
        sums = [part._sums for part in parts if part._sums is not None]
        same = len(sizes) <= 1 and len(sums) == len(parts)
        whole._sums = _in_turn(sums) if same else None
        whole._distributions = _in_turn([part._distributions for part in parts])
        return whole

    def differ(self) -> bool:
        """Whether batches differ by more than chance."""
        return any(map(_inputs_differ, filter(None, (self._sums, self._distributions))))


def _in_turn(parts: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """The first of each, then the second of each, and so on."""
    turns = itertools.zip_longest(*parts)
    return [tensor for turn in turns for tensor in turn if tensor is not None]


def _inputs_differ(batches: list[Tensor]) -> bool:
    """Whether some variable (n, variables) differs between batches by more than chance."""
    from scipy.special import fdtrc  # takes a while

    values = torch.cat(batches).double().nan_to_num(0.0, 0.0, 0.0)
    n, free = len(values), len(batches) - 1
    left = n - len(batches)
    if free < 1 or left < 1:
        return False
    scale = values.abs().amax(0)
    values = values - values.mean(0)
    varies = values.abs().amax(0) > 1e-6 * scale
    values = values[:, varies] / values[:, varies].square().mean(0).sqrt()
    values = values[:, n / values.pow(4).mean(0) > _SAMPLES]
    if values.shape[1] == 0:
        return False
    batch = torch.arange(len(batches)).repeat_interleave(torch.tensor([len(b) for b in batches]))
    sizes = batch.bincount().unsqueeze(1)

    def f_ratio(values: Tensor) -> Tensor:
        totals = values.new_zeros(len(batches), values.shape[1]).index_add_(0, batch, values)
        between = (totals.square() / sizes).sum(0)
        # Within may be zero but for rounding; the sum of squares is n.
        return (between / free) / ((n - between) / left).clamp_min(1e-12)

    ratio = f_ratio(values)
    correlation = (ratio - 1) / (ratio + n / len(batches) - 1)  # of two samples of one batch
    if correlation.mean() <= _SHARE and correlation.max() <= _PATCH:
        return False
    if fdtrc(free, left, ratio.numpy()).min() * len(ratio) >= _FALSE_ALARMS:
        return False
    generator = torch.Generator().manual_seed(0)
    shuffled = torch.stack(
        [f_ratio(values[torch.randperm(n, generator=generator)]).max() for _ in range(_ORDERS)]
    )
    return bool(ratio.max() > shuffled.mean() + _DEVIATIONS * shuffled.std())


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
