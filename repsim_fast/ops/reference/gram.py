"""Plain-torch versions of every operator: the oracle of the tests, and readable definitions.

Written for clarity, in the dtype of their input: float64 in, float64 out.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repsim_fast._core.precision import full_precision


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


def pack_gram(
    gram: Tensor,  # (n, n)
    centering: str,
) -> Tensor:
    """Lower triangle as a vector with the inner products of the full matrices."""
    n = gram.shape[0]
    rows, columns = torch.tril_indices(
        n, n, offset=-1 if centering == "unbiased" else 0, device=gram.device
    )
    weight = torch.full(rows.shape, math.sqrt(2.0), dtype=gram.dtype, device=gram.device)
    return gram[rows, columns] * weight.masked_fill(rows == columns, 1.0)


def unpack_gram(
    packed: Tensor,  # (n(n-1)/2,) or (n(n+1)/2,)
    n: int,
    centering: str,
) -> Tensor:
    """Inverse of `pack_gram`: the symmetric (n, n) matrix."""
    rows, columns = torch.tril_indices(
        n, n, offset=-1 if centering == "unbiased" else 0, device=packed.device
    )
    weight = torch.full_like(packed, 1.0 / math.sqrt(2.0)).masked_fill(rows == columns, 1.0)
    lower = packed.new_zeros(n, n).index_put((rows, columns), packed * weight)
    return lower + lower.T - torch.diag(lower.diagonal())


@full_precision()
def centered_gram(
    x: Tensor,  # (n, p)
    *,
    centering: str = "unbiased",
    packed: bool = False,
    precision: str | None = None,
) -> Tensor:
    """Twin of `ops.centered_gram`; see there."""
    wide = x if x.dtype == torch.float64 else x.float()
    if centering != "none":
        wide = wide - wide.mean(dim=0)
    if precision == "bfloat16":
        wide = wide.bfloat16().float()
    gram = center_gram(wide @ wide.T, centering)
    return pack_gram(gram, centering) if packed else gram
