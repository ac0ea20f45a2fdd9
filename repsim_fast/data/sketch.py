"""A few numbers for each sample, in which samples that are alike are alike."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_CHUNKS = 64
_FREQUENCIES = 16
# Numbers of a sample of which the distribution is taken, evenly spread.
_LOOKED_AT = 512


def chunk_sums(rows: Tensor) -> Tensor:
    """Sums with random signs over chunks of neighbours: (n, d) -> (n, at most 64).

    Every number counts, and what is in a small patch alone is not lost among all others. It takes
    one multiplication for each number.
    """
    generator = torch.Generator().manual_seed(0)
    signs = torch.randint(2, (rows.shape[1],), generator=generator).to(rows) * 2 - 1
    size = max(1, math.ceil(rows.shape[1] / _CHUNKS))
    pairs = zip(rows.split(size, 1), signs.split(size), strict=True)  # type: ignore[no-untyped-call]
    return torch.stack([chunk @ sign for chunk, sign in pairs], 1)


def distribution(rows: Tensor) -> Tensor:
    """How the numbers of each sample are distributed, and how many: (n, d) -> (n, 17).

    16 points of their characteristic function do not depend on d, nor on padding, as which equal
    numbers at either end of a sample count.
    """
    step = max(1, math.ceil(rows.shape[1] / _LOOKED_AT))
    rows = rows[:, ::step]
    own = _own_numbers(rows)
    count = own.sum(1)
    generator = torch.Generator().manual_seed(0)
    # Up to pi: integers are told apart, and waves over numbers of order one are not too fast.
    frequencies, phases = math.pi * torch.rand(2, _FREQUENCIES, generator=generator).to(rows)
    waves = rows.unsqueeze(1) * frequencies.unsqueeze(1)  # (n, 16, numbers)
    waves = waves.add_(phases.unsqueeze(1)).cos_().mul_(own.unsqueeze(1))
    points = waves.sum(2) / count.clamp_min(1).unsqueeze(1)
    return torch.cat((points, (step * count).unsqueeze(1)), 1)


def _own_numbers(rows: Tensor) -> Tensor:
    """Which numbers (n, d) are not among equal ones at the beginning or the end of their sample."""
    if rows.shape[1] < 2:
        return torch.ones_like(rows, dtype=torch.bool)
    changes = (rows[:, 1:] != rows[:, :-1]).to(torch.uint8)
    begun = changes.cummax(1).values.bool()
    goes_on = changes.flip(1).cummax(1).values.flip(1).bool()
    own = torch.zeros_like(rows, dtype=torch.bool)
    own[:, 1:-1] = begun[:, :-1] & goes_on[:, 1:]
    return own
