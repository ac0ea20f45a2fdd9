"""How many weights go, and which: those of the smallest importance."""

from __future__ import annotations

from fractions import Fraction
from numbers import Real

import torch
from torch import Tensor


def check_sparsity(sparsity: float) -> None:
    """Raises ValueError or TypeError unless it is a number in [0, 1)."""
    if isinstance(sparsity, bool) or not isinstance(sparsity, Real):
        raise TypeError(f"sparsity must be a number, got {sparsity!r}")
    if not 0 <= sparsity < 1:
        raise ValueError(f"sparsity must lie in [0, 1), 1 leaves no weight; got {sparsity}")


def n_kept(sparsity: float, n: int) -> int:
    """What is left of n: floor(sparsity n) go, with the sparsity as it is written.

    In binary 0.29 * 100 is less than 29.
    """
    return n - int(Fraction(str(sparsity)) * n)


def largest(importance: Tensor, kept: int) -> Tensor:
    """Mask, bool and of the same shape, of exactly that many largest entries."""
    mask = torch.zeros(importance.numel(), dtype=torch.bool, device=importance.device)
    mask[importance.flatten().topk(kept, sorted=False).indices] = True
    return mask.view(importance.shape)
