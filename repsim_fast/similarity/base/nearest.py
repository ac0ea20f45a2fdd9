"""Nearest neighbours of every sample, by the true order of distances.

Distances from products of samples are off by some eps times the squared norms of the two, which in
tight clusters is more than the distances themselves. So the neighbours of a sample are accepted
where no other distance is within that error of the k-th. Otherwise products in float64 decide, and
in clusters too tight for those differences, among a few candidates if these are enough.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from repsim_fast.ops import centered_gram

# Entries of the (rows, n) matrices of nearness, or of gathered features, that are held at once.
ENTRIES = 1 << 24

# Largest error of <a, b> - ‖b‖²/2 from products, in eps (‖a‖ + ‖b‖)²: 1.4 was found, for 16 to
# 30,000 features with or without a sign.
ERROR_ULPS = 2.0

# Samples beyond the k-th that are candidates.
EXTRA = 8

# Share of (‖a‖ + ‖b‖)² from which on products in float64 leave a squared distance nine digits.
# Distances that differ by less count as equal.
TIGHT = 2.0**-20


def nearest(
    rows: Tensor,  # (n, p)
    k: int,
    *,
    apart: Tensor | None = None,  # (n,)
    ordered: bool = False,
    products: torch.dtype = torch.float32,
) -> Tensor:
    """Numbers (n, k) of the k nearest other rows by Euclidean distance, nearest first.

    Args:
        rows: Samples, float32 or float64.
        k: 1 to n - 1.
        apart: Added to the squared distance of every sample to this one.
        ordered: Whether the order of the k must be right, too, and not only which they are.
        products: What distances are first taken in; float64 at once where torch may take products
            of float32 matrices in less.
    """
    n = len(rows)
    apart = rows.new_zeros(n, dtype=torch.float64) if apart is None else apart.double()
    found = torch.empty(n, k, dtype=torch.int64, device=rows.device)
    left = torch.arange(n, device=rows.device)
    dtypes = [torch.float32, torch.float64]
    if products == torch.float64 or torch.get_float32_matmul_precision() != "highest":
        dtypes = [torch.float64]
    for dtype in dtypes:
        left = _by_products(rows, apart, k, ordered, dtype, left, found)
    for some in torch.split(left, max(1, ENTRIES // n)):
        distances = torch.cdist(
            rows[some].double(), rows.double(), compute_mode="donot_use_mm_for_euclid_dist"
        )
        squared = (distances.square() + apart).scatter_(1, some[:, None], torch.inf)
        found[some] = squared.topk(k, dim=1, largest=False).indices
    return found


def _by_products(
    rows: Tensor,
    apart: Tensor,
    k: int,
    ordered: bool,
    dtype: torch.dtype,
    chosen: Tensor,
    found: Tensor,
) -> Tensor:
    """Finds the neighbours of the chosen samples where products decide; returns the others."""
    n = len(rows)
    # In the wider of both: of rows far from 0 a narrower dtype would keep no digits.
    wide = rows.to(torch.promote_types(rows.dtype, dtype))
    centred = (wide - wide.mean(dim=0)).to(dtype)
    squares = centred.square().sum(dim=1) + apart.to(dtype)
    norms = squares.sqrt()
    # Products below the smallest number may vanish.
    vanishing = 2 * rows.shape[1] * torch.finfo(dtype).tiny
    left = []
    for some, near in _blocks(centred, chosen):
        near -= squares / 2  # the nearest to a has the largest <a, b> - ‖b‖²/2
        near.scatter_(1, some[:, None], -torch.inf)
        values, numbers = near.topk(min(n - 1, k + 1), dim=1)
        reach = (norms[some] + norms[numbers].amax(dim=1)).square()
        error = 2 * ERROR_ULPS * torch.finfo(dtype).eps * reach + vanishing
        apart_enough = values[:, :-1] - values[:, 1:] > error[:, None]
        if dtype == torch.float64:
            squared = squares[some, None] - 2 * values[:, :-1]
            apart_enough |= squared >= TIGHT * reach[:, None]
        decided = (apart_enough if ordered else apart_enough[:, k - 1 :]).all(dim=1)
        found[some[decided]] = numbers[decided, :k]
        again = (~decided).nonzero().flatten()
        if dtype == torch.float64:
            values, numbers = near[again].topk(min(n - 1, k + EXTRA), dim=1)
            all_there = numbers.shape[1] == n - 1
            listed = (values[:, k - 1] - values[:, -1] > error[again]) | all_there
            settled = some[again[listed]]
            found[settled] = _by_differences(rows, apart, k, settled, numbers[listed])
            again = again[~listed]
        left.append(some[again])
    return torch.cat(left)


def _blocks(
    rows: Tensor,  # (n, p)
    chosen: Tensor,  # (m,)
) -> Iterator[tuple[Tensor, Tensor]]:
    """Numbers (r,) of some of the chosen rows and their products (r, n) with all."""
    n = len(rows)
    if len(chosen) == n and n * n <= ENTRIES:
        yield chosen, centered_gram(rows, centering="none")  # computes one triangle
        return
    for some in torch.split(chosen, max(1, ENTRIES // n)):
        yield some, rows[some] @ rows.mT


def _by_differences(
    rows: Tensor, apart: Tensor, k: int, some: Tensor, candidates: Tensor
) -> Tensor:
    """The k nearest (r, k) of the candidates (r, m) of some samples (r,)."""
    parts = []
    count = max(1, ENTRIES // (candidates.shape[1] * rows.shape[1]))
    for samples, others in zip(
        torch.split(some, count), torch.split(candidates, count), strict=True
    ):
        differences = rows[samples, None].double() - rows[others].double()
        squared = differences.square().sum(dim=2) + apart[others]
        parts.append(others.gather(1, squared.topk(k, dim=1, largest=False).indices))
    return torch.cat(parts)
