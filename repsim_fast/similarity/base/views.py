"""What measures keep of a representation, and how values of many pairs come from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from repsim_fast.ops import cross_gram
from repsim_fast.similarity.base.pairs import Batch, Pairs, products
from repsim_fast.similarity.base.prepared import Prepared


@dataclass(frozen=True, eq=False)
class Factor:
    """A factor (n, k) whose products with other factors a measure needs, and a size (scalar)."""

    factor: Tensor
    size: Tensor

    def take(self, rows: Tensor) -> Factor:
        """The view after a permutation of samples."""
        return dataclasses.replace(self, factor=self.factor[rows])


@dataclass(frozen=True, eq=False)
class Triangle:
    """Unit vector (n(n-1)/2,) or (n(n+1)/2,) of entries of a symmetric (n, n) matrix, row by row,
    whose inner products with others are the values."""

    vector: Tensor
    n: int

    def take(self, rows: Tensor) -> Triangle:
        """The view after a permutation of samples."""
        strict = self.vector.numel() == self.n * (self.n - 1) // 2
        first, second = torch.tril_indices(
            self.n, self.n, offset=-1 if strict else 0, device=self.vector.device
        )
        matrix = self.vector.new_zeros(self.n, self.n)
        matrix[first, second] = self.vector
        matrix[second, first] = self.vector
        rows = rows.to(first.device)
        return Triangle(matrix[rows[first], rows[second]], self.n)


@dataclass(frozen=True, eq=False)
class Rows:
    """The representation itself, for measures that see all of it in every pair."""

    prepared: Prepared

    def take(self, rows: Tensor) -> Rows:
        """The view after a permutation of samples."""
        return Rows(self.prepared.take(rows))


@dataclass(frozen=True, eq=False)
class Number:
    """One number that says all."""

    value: Tensor

    def take(self, rows: Tensor) -> Number:
        """The view after a permutation of samples, which changes nothing."""
        return self


def from_products(
    left: Sequence[Tensor],  # (n, k_i) each
    right: Sequence[Tensor],  # (n, k_j) each; the same object within one set
    pairs: Pairs,
    kernel: Callable[[Batch], Tensor],
    *,
    close: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Values (len(pairs),) float64 of a function of the products of factors.

    Args:
        left, right: Factors.
        pairs: Which to multiply.
        kernel: Values (B,) of a batch of products.
        close: Marks values (B,) that float32 products leave too few digits of; those pairs are
            computed again from float64 products.
    """
    numbers: list[int] = []
    parts: list[Tensor] = []
    for batch in products(left, right, pairs):
        values = kernel(batch).double()
        if close is not None and batch.products.dtype != torch.float64:
            again = close(values.detach()).nonzero().flatten().tolist()
            precise = [
                kernel(Batch([number], cross_gram(left[i].double(), right[j].double())[None]))
                for number in (batch.numbers[k] for k in again)
                for i, j in [pairs[number]]
            ]
            if precise:
                values = values.index_put(
                    (torch.tensor(again, device=values.device),), torch.cat(precise).double()
                )
        numbers += batch.numbers
        parts.append(values)
    order = torch.tensor(numbers, device=parts[0].device).argsort()
    return torch.cat(parts)[order]


# Entries of triangles that are multiplied at once: partial sums of this many in float32 are added
# up in float64.
CHUNK = 1 << 16


def inner_products(left: Sequence[Triangle], right: Sequence[Triangle], pairs: Pairs) -> Tensor:
    """Inner products (len(pairs),) float64, each triangle read once."""
    size = left[0].vector.numel()
    total = torch.zeros(len(left), len(right), dtype=torch.float64, device=left[0].vector.device)
    for start in range(0, size, CHUNK):
        ours = torch.stack([view.vector[start : start + CHUNK] for view in left])
        theirs = (
            ours
            if left is right
            else torch.stack([view.vector[start : start + CHUNK] for view in right])
        )
        total = total + (ours @ theirs.mT).double()
    rows, columns = zip(*pairs, strict=True)
    return total[list(rows), list(columns)]


def energy(
    matrices: Tensor,  # (..., m, n)
) -> Tensor:
    """Squared Frobenius norms (...) in float64."""
    norms: Tensor = torch.linalg.vector_norm(matrices, dim=(-2, -1), dtype=torch.float64)
    return norms.square()


def factors(left: Sequence[Factor], right: Sequence[Factor]) -> tuple[list[Tensor], list[Tensor]]:
    """The factors of both sides, one object if they are one set."""
    ours = [view.factor for view in left]
    return ours, ours if left is right else [view.factor for view in right]


def sizes(left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> tuple[Tensor, Tensor]:
    """The sizes (len(pairs),) of both sides of every pair."""
    ours = torch.stack([left[i].size for i, _ in pairs])
    return ours, torch.stack([right[j].size for _, j in pairs])
