"""Singular values and vectors of many small matrices at once: the one place that asks for them.

Matrices of different sizes share a batch, padded with zeros at the bottom and on the right, which
adds zeros to the singular values and zero rows to the vectors.
"""

from __future__ import annotations

import torch
from torch import Tensor


def singular_values(
    matrices: Tensor,  # (B, m, n) zero-padded
) -> Tensor:
    """Singular values (B, min(m, n)), falling."""
    values: Tensor = torch.linalg.svdvals(matrices)
    return values


def nuclear_norm(
    matrices: Tensor,  # (B, m, n) zero-padded
) -> Tensor:
    """Sums of singular values (B,) in float64."""
    return singular_values(matrices).sum(dim=-1, dtype=torch.float64)


def singular_vectors(
    matrices: Tensor,  # (B, m, n) zero-padded
) -> tuple[Tensor, Tensor, Tensor]:
    """U (B, m, k), values (B, k) and Vᵀ (B, k, n) with k = min(m, n)."""
    left, values, right = torch.linalg.svd(matrices, full_matrices=False)
    return left, values, right
