"""Singular values and vectors of a batch of products: the one place that asks for them."""

from __future__ import annotations

import torch
from torch import Tensor

from repsim_fast.ops import batched_svd, batched_svdvals
from repsim_fast.similarity._pairs import Batch


def singular_values(batch: Batch) -> Tensor:
    """Singular values (B, min(m, n)), falling; zeros behind those of a smaller matrix."""
    return batched_svdvals(batch.products, rows=batch.rows, columns=batch.columns)


def nuclear_norm(batch: Batch) -> Tensor:
    """Sums of singular values (B,), in float64: distances take differences of them."""
    return singular_values(batch).sum(dim=-1, dtype=torch.float64)


def singular_vectors(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """U (B, m, k), values (B, k) and Vᵀ (B, k, n), k = min(m, n); zeros behind smaller matrices."""
    return batched_svd(batch.products, rows=batch.rows, columns=batch.columns)
