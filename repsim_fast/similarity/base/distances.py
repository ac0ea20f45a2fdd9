"""Distances and cosines between the samples of one representation."""

from __future__ import annotations

import torch
from torch import Tensor

from repsim_fast.ops import centered_gram
from repsim_fast.similarity.base.prepared import Prepared

# A squared distance from products of samples is off by some eps times the squared norms of the two.
# From this share of them on that leaves 1e-5 of it in float32 and 1e-12 in float64; nearer samples,
# as in tight clusters or beside one large sample, are looked at again from nearby.
PRODUCTS = {torch.float32: 2.0**-6, torch.float64: 2.0**-10}

# Samples near to one that are worth products of their own; distances of fewer are those of their
# differences, of which this many entries are held at once.
GROUP = 16
ENTRIES = 1 << 24


def squared_distances(
    x: Prepared,
) -> Tensor:
    """Squared Euclidean distances (n, n), zero on the diagonal, each right to some digits of its
    own size however much larger others are."""
    return _between(x.features, x.centered)


def _between(
    rows: Tensor,  # (n, p)
    shifted: Tensor,  # (n, p) the same, around 0
) -> Tensor:
    """Squared distances (n, n) in the dtype of the shifted rows."""
    gram = centered_gram(shifted, centering="none")
    squares = gram.diagonal()
    sums = squares[:, None] + squares[None, :]
    found = torch.add(sums, gram, alpha=-2).fill_diagonal_(torch.inf)
    share = PRODUCTS[shifted.dtype]
    if float(found.detach().min()) < 2 * share * float(squares.detach().max()):
        found = _refined(found, found.detach() < share * sums.detach(), rows)
    return found.fill_diagonal_(0.0)


def _refined(
    found: Tensor,  # (n, n) squared distances of rows
    near: Tensor,  # (n, n) bool
    rows: Tensor,  # (n, p)
) -> Tensor:
    """With distances of the near pairs taken again: relative to a sample near to both, products
    have digits enough."""
    if not bool(near.any()):
        return found
    near = near.clone()
    counts = near.sum(dim=1)
    firsts, seconds, values = [], [], []
    while int(counts.max()) > GROUP:
        pivot = int(counts.argmax())
        members = near[pivot].nonzero().flatten()
        members = torch.cat([members, members.new_tensor([pivot])])
        chosen = rows[members]
        block = _between(chosen, (chosen - rows[pivot]).to(found.dtype))
        which = near[members][:, members]
        one, other = which.nonzero().unbind(dim=1)
        firsts.append(members[one])
        seconds.append(members[other])
        values.append(block[one, other])
        near[members[one], members[other]] = False
        counts[members] -= which.sum(dim=1)
    first, second = near.tril(-1).nonzero().unbind(dim=1)
    count = max(1, ENTRIES // rows.shape[1])
    for one, other in zip(torch.split(first, count), torch.split(second, count), strict=True):
        squared = (rows[one] - rows[other]).square().sum(dim=1).to(found.dtype)
        firsts += [one, other]
        seconds += [other, one]
        values += [squared, squared]
    return found.index_put((torch.cat(firsts), torch.cat(seconds)), torch.cat(values))


def cosine_dissimilarities(
    x: Tensor,  # (n, p) float64
    dtype: torch.dtype,
    rounding: Tensor,  # (n,) of the directions of rows
) -> Tensor:
    """1 - cosine of all pairs of rows (n, n); rows of zeros have cosine 0 with every other.

    Where cosines are near 1, half the squared distance of unit vectors, which keeps its digits.
    Otherwise not: orthogonal samples, which sparse features have many of, must stay at equal
    dissimilarities. Directions that differ by no more than their rounding are equal.
    """
    unit = unit_rows(x)
    found = 1 - centered_gram(unit.to(dtype), centering="none")
    near = (found.detach() < PRODUCTS[dtype]).fill_diagonal_(False)
    found = _refined(2 * found, near, unit) / 2 if bool(near.any()) else found
    first, second = (found.detach() <= 2 * float(rounding.max()) ** 2).nonzero().unbind(dim=1)
    values = found[first, second]
    equal = (2 * values.detach()).sqrt() <= rounding[first] + rounding[second]
    return found.index_put((first, second), values.where(~equal, 0.0))


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
