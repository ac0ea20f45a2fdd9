"""Distances and cosines between the samples of one representation."""

from __future__ import annotations

import torch
from torch import Tensor

from repsim_fast.ops import centered_gram
from repsim_fast.similarity.prepared import Prepared


def squared_distances(
    x: Prepared,
) -> Tensor:
    """Squared Euclidean distances (n, n), zero on the diagonal.

    From the Gram of centred features: what rounding leaves is relative to the squared distance
    from the mean sample, not from the origin.
    """
    gram = centered_gram(x.centered, centering="none")
    squares = gram.diagonal()
    distances = (squares[:, None] + squares[None, :] - 2 * gram).clamp_min(0.0)
    return distances - torch.diag(distances.diagonal())


def distances(
    x: Prepared,
) -> Tensor:
    """Euclidean distances (n, n); the gradient at distance 0 is 0."""
    squared = squared_distances(x)
    apart = squared > 0
    return torch.where(apart, squared.where(apart, 1.0).sqrt(), 0.0)


def squared_median(
    squared: Tensor,  # (n, n) squared distances, zero diagonal
) -> Tensor:
    """Median of all n² entries, the mean of the middle two where n is even.

    Every entry below the diagonal stands for two, and zeros come first; so the k-th smallest of
    all, k > n, is the ceil((k - n)/2)-th of those.
    """
    n = squared.shape[0]
    below = below_diagonal(squared)
    middle = [(n * n + 1) // 2, n * n // 2 + 1]
    ranks = sorted({(k - n + 1) // 2 for k in middle})
    return torch.stack([below.kthvalue(rank).values for rank in ranks]).mean()


def below_diagonal(
    matrix: Tensor,  # (n, n)
) -> Tensor:
    """Entries below the diagonal (n(n-1)/2,), row by row."""
    n = matrix.shape[0]
    return matrix[torch.ones(n, n, dtype=torch.bool, device=matrix.device).tril(-1)]


def unit_rows(
    x: Tensor,  # (n, p)
) -> Tensor:
    """Rows scaled to norm 1; rows of zeros stay, and have cosine 0 with every other."""
    norms = torch.linalg.vector_norm(x, dim=1, keepdim=True)
    scaled: Tensor = x / norms.where(norms > 0, 1.0)
    return scaled
