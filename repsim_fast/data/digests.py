"""Digests of tensors, in which all of their numbers count, in one pass over them."""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

# Numbers of a block, whose sum with random weights is a number of the next round.
_WIDTH = 512
# Numbers that are worked on at once: they stay in a processor's cache, and occupy a GPU.
_AT_ONCE = {"cpu": 2**16, "cuda": 2**22}
_LOW = 2**32 - 1
_ODD = 6364136223846793005


def digests(
    x: Tensor,  # (n, ...)
) -> Tensor:
    """(n,) int64 on the CPU, one of the numbers of each entry of the first dimension.

    Equal numbers have equal digests whatever their dtype, integers apart from floating-point
    numbers; 0.0 and -0.0, and each NaN, are numbers of their own.

    Example:
        >>> import torch
        >>> from repsim_fast.data.digests import digests
        >>> one, two, three = digests(torch.tensor([[1, 2], [1, 2], [2, 1]])).tolist()
        >>> one == two, one == three
        (True, False)
    """
    x = x.detach().resolve_conj().resolve_neg()
    x = torch.view_as_real(x) if x.is_complex() else x
    x = x if x.device.type in _AT_ONCE else x.cpu()
    rows = x.reshape(len(x), math.prod(x.shape[1:]))  # also of no samples
    size = rows.shape[1]
    if not rows.numel():
        return torch.zeros(len(rows), dtype=torch.int64)
    rows = _blocks(rows)
    while rows.shape[1] > 1:
        rows = _blocks(rows)
    return _mixed(rows[:, 0] + size).cpu()


def _blocks(
    rows: Tensor,  # (n, d)
) -> Tensor:
    """(n, d / _WIDTH) int64, rounded up, in pieces of bounded memory."""
    at_once = _AT_ONCE[rows.device.type]
    pieces = rows.split(max(1, at_once // rows.shape[1]))  # type: ignore[no-untyped-call]
    found = [torch.cat([_sums(part) for part in piece.split(at_once, 1)], 1) for piece in pieces]
    return torch.cat(found)


def _sums(
    part: Tensor,  # (k, c)
) -> Tensor:
    """(k, c / _WIDTH) int64, rounded up: sums of the numbers' bits with random weights."""
    if part.is_floating_point():
        words = part.to(torch.float64).view(torch.int64)
    else:
        words = part.to(torch.int64)
    if words.shape[1] > _WIDTH and words.shape[1] % _WIDTH:
        words = torch.nn.functional.pad(words, (0, -words.shape[1] % _WIDTH))
    blocks = _folded(words.contiguous()).view(len(words), -1, min(words.shape[1], _WIDTH))
    return _mixed(blocks.mul_(_weights(part.device)[: blocks.shape[2]]).sum(2))


def _folded(words: Tensor) -> Tensor:
    """The same with their high bits in the low ones, too, in new memory; one for each.

    The low bits of small whole numbers in float64 are zeros, which products would keep.
    """
    return (words >> 32).bitwise_and_(_LOW).bitwise_xor_(words)


def _mixed(words: Tensor) -> Tensor:
    """Each in such a form that all its bits depend on all bits."""
    return _folded(_folded(words).mul_(_ODD)).mul_(_ODD)


@functools.lru_cache
def _weights(device: torch.device) -> Tensor:
    """(_WIDTH,) odd int64, always the same."""
    generator = torch.Generator().manual_seed(_WIDTH)
    weights = torch.randint(-(2**62), 2**62, (_WIDTH,), generator=generator) * 2 + 1
    return weights.to(device)
