"""Centring of Gram matrices and their packed form, in plain torch.

For gradients, and for Grams of kernels that `centered_gram` does not compute. All functions are
differentiable and work in the dtype of their input.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

Centering = Literal["none", "features", "double", "unbiased"]

CENTERINGS: tuple[Centering, ...] = ("none", "features", "double", "unbiased")
MIN_SAMPLES: dict[str, int] = {"none": 1, "features": 1, "double": 1, "unbiased": 4}


def center_gram(
    gram: Tensor,  # (n, n)
    centering: str,
) -> Tensor:
    """Centres a Gram matrix; "none" and "features" leave it as it is."""
    n = gram.shape[0]
    if centering == "double":
        rows = gram.mean(dim=1)
        return gram - rows[:, None] - rows[None, :] + gram.mean()
    if centering == "unbiased":
        off_diagonal = gram - torch.diag(gram.diagonal())
        rows = off_diagonal.sum(dim=1) / (n - 2)
        centred = (
            off_diagonal - rows[:, None] - rows[None, :] + off_diagonal.sum() / ((n - 1) * (n - 2))
        )
        return centred - torch.diag(centred.diagonal())
    return gram


def packed_size(n: int, centering: str) -> int:
    """Entries of a packed Gram of n samples."""
    return n * (n - 1) // 2 if centering == "unbiased" else n * (n + 1) // 2


def pack_gram(
    gram: Tensor,  # (n, n)
    centering: str,
) -> Tensor:
    """Lower triangle as a vector with the inner products of the full matrices."""
    rows, columns = _triangle(gram.shape[0], centering, gram.device)
    weight = torch.full(rows.shape, math.sqrt(2.0), dtype=gram.dtype, device=gram.device)
    return gram[rows, columns] * weight.masked_fill(rows == columns, 1.0)


def unpack_gram(
    packed: Tensor,  # (packed_size(n, centering),)
    n: int,
    centering: str,
) -> Tensor:
    """Inverse of `pack_gram`: the symmetric (n, n) matrix."""
    rows, columns = _triangle(n, centering, packed.device)
    weight = torch.full_like(packed, 1.0 / math.sqrt(2.0)).masked_fill(rows == columns, 1.0)
    lower = packed.new_zeros(n, n).index_put((rows, columns), packed * weight)
    return lower + lower.T - torch.diag(lower.diagonal())


def _triangle(n: int, centering: str, device: torch.device) -> Tensor:
    """Row and column of each packed entry, (2, packed_size(n, centering))."""
    return torch.tril_indices(n, n, offset=-1 if centering == "unbiased" else 0, device=device)
