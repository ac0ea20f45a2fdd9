"""Distances and cosines between the samples of one representation."""

from __future__ import annotations

import torch
from torch import Tensor

from repsim_fast.ops import centered_gram
from repsim_fast.similarity.base.factor import centred
from repsim_fast.similarity.base.prepared import Prepared

# Mean cosine of samples above which 1 - cosine would lose more than a digit.
NEAR_ONE = 0.9


def squared_distances(
    x: Prepared,
) -> Tensor:
    """Squared Euclidean distances (n, n), zero on the diagonal.

    From the Gram of centred features: what rounding leaves is relative to the squared distance
    from the mean sample, not from the origin.
    """
    return _squared_distances(x.centered)


def _squared_distances(
    rows: Tensor,  # (n, p) centred
) -> Tensor:
    gram = centered_gram(rows, centering="none")
    squares = gram.diagonal()
    distances = (squares[:, None] + squares[None, :] - 2 * gram).clamp_min(0.0)
    return distances - torch.diag(distances.diagonal())


def cosine_dissimilarities(
    x: Tensor,  # (n, p) float64
    dtype: torch.dtype,
) -> Tensor:
    """1 - cosine of all pairs of rows (n, n); rows of zeros have cosine 0 with every other.

    Where cosines are near 1, as those of features with a mean far from zero, half the squared
    distance of unit vectors, which keeps its digits. Otherwise not: orthogonal samples, which
    sparse features have many of, must stay at equal dissimilarities.
    """
    unit = unit_rows(x)
    if float(unit.detach().mean(dim=0).square().sum()) <= NEAR_ONE:
        return 1 - centered_gram(unit.to(dtype), centering="none")
    zero = (unit == 0).all(dim=1).to(dtype)  # at squared distance 1 from unit vectors
    squared = _squared_distances(centred(unit).to(dtype))
    return (squared + zero[:, None] + zero[None, :]) / 2


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
