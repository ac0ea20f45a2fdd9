"""Plain-torch versions of the batched SVD operators: one matrix after the other, by LAPACK.

Written for clarity, in the dtype of their input: float64 in, float64 out. Matrices must be finite.
"""

from __future__ import annotations

import torch
from torch import Tensor


def batched_svd(
    a: Tensor,  # (B, m, n)
    *,
    rows: Tensor | None = None,  # (B,)
    columns: Tensor | None = None,  # (B,)
) -> tuple[Tensor, Tensor, Tensor]:
    """Twin of `ops.batched_svd`; see there."""
    batch, m, n = a.shape
    k = min(m, n)
    u, s, vh = a.new_zeros(batch, m, k), a.new_zeros(batch, k), a.new_zeros(batch, k, n)
    for b in range(batch):
        mb = m if rows is None else int(rows[b])
        nb = n if columns is None else int(columns[b])
        kb = min(mb, nb)
        u[b, :mb, :kb], s[b, :kb], vh[b, :kb, :nb] = torch.linalg.svd(
            a[b, :mb, :nb], full_matrices=False
        )
    return u, s, vh


def batched_svdvals(
    a: Tensor,  # (B, m, n)
    *,
    rows: Tensor | None = None,  # (B,)
    columns: Tensor | None = None,  # (B,)
) -> Tensor:
    """Twin of `ops.batched_svdvals`; see there."""
    return batched_svd(a, rows=rows, columns=columns)[1]


def batched_nuclear_norm(
    a: Tensor,  # (B, m, n)
    *,
    rows: Tensor | None = None,  # (B,)
    columns: Tensor | None = None,  # (B,)
) -> Tensor:
    """Twin of `ops.batched_nuclear_norm`; see there."""
    return batched_svdvals(a, rows=rows, columns=columns).sum(dim=1)
