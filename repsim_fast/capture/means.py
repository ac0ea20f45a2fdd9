"""Means over positions, where they vary by more than the rounding of what they are means of.

An instance normalisation gives each map of each sample the same mean. What rounding leaves of it is
as large as its features are afterwards, and no measure could tell it from features that vary: such
means become one row, equal for all samples, which measures know as constant.
"""

from __future__ import annotations

import torch
from torch import Tensor

from repsim_fast.capture.features import Channels, pool

# Units of rounding of the mean size of what is averaged, within which means are equal. Those of an
# instance normalisation lie 2 to 8 apart, and m / s times as many where its input has a mean of m
# and a deviation of s; features that vary lie 1 / sqrt(positions) of that size apart, about.
_ULPS, _ULPS_OF_16_BITS = 64, 2


class Means:
    """Means over positions of a model's layers, batch by batch.

    Attributes:
        constant: Layers whose means rounding alone told apart in their first batch, with the mean
            of its first sample, (C,).
    """

    def __init__(self) -> None:
        self.constant: dict[str, Tensor] = {}
        self._varying: set[str] = set()

    def of(self, name: str, x: Tensor, channels: Channels) -> Tensor:
        """(N, C, ...) or (N, ..., C) to (N, C).

        The first batch in which they differ decides whether later ones of the layer are looked at,
        which takes as long again.
        """
        means = pool(x, channels)
        if x.ndim <= 2 or name in self._varying:
            return means
        if name in self.constant:
            return _made_equal(means, self.constant[name], x, channels)[0]
        row = means[0].detach().clone()
        if not bool((means != row).any()):
            return means
        found, constant = _made_equal(means, row, x, channels)
        if bool(constant):
            self.constant[name] = row
        else:
            self._varying.add(name)
        return found


def means(x: Tensor, channels: Channels) -> Tensor:
    """Means over positions of all samples at once, (N, C, ...) or (N, ..., C) to (N, C)."""
    return Means().of("", x, channels)


def _made_equal(
    means: Tensor,  # (N, C)
    row: Tensor,  # (C,)
    x: Tensor,
    channels: Channels,
) -> tuple[Tensor, Tensor]:
    """The row for each sample if rounding alone tells the means from it, else the means; whether it
    does, () bool. A GPU need not be waited for."""
    ulps = _ULPS_OF_16_BITS if x.element_size() < 4 else _ULPS
    rounding = pool(x.abs(), channels) * (ulps * torch.finfo(x.dtype).eps)
    constant = ((means - row).abs() <= rounding).all()
    return torch.where(constant, row.expand_as(means), means), constant
