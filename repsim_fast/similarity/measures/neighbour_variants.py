"""Relatives of the overlap of nearest neighbours: their order, ways back, and their kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast.similarity.base.distances import unit_rows
from repsim_fast.similarity.base.measure import Info, check_count, register
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.measures.neighbours import (
    COST,
    ENTRIES,
    INVARIANT,
    Metric,
    MutualKNN,
    Neighbourhood,
    Neighbours,
    common,
)
from repsim_fast.similarity.streaming.samples import SampleMeasure


@register
@dataclass(frozen=True)
class CycleKNN(Neighbours):
    """See `cycle_knn`."""

    info: ClassVar[Info] = Info(
        name="cycle_knn",
        title="cycle k-nearest neighbours",
        kind="similarity",
        formula="share of samples i with i in N(j) for a j in N'(i), N the k nearest others in x, "
        "N' in y",
        low=0.0,
        high=1.0,
        invariant_to=INVARIANT,
        differentiable="no",
        cost=COST,
        source="Huh et al. 2024",
        symmetric=False,
    )

    def compare(self, x: Neighbourhood, y: Neighbourhood) -> Tensor:
        """Whether a sample is found again."""
        back = x.neighbours[y.neighbours].flatten(1)  # (n, k²)
        own = torch.arange(len(back), device=back.device)[:, None]
        return (back == own).any(dim=1).double()


@register
@dataclass(frozen=True)
class LCSKNN(Neighbours):
    """See `lcs_knn`."""

    info: ClassVar[Info] = Info(
        name="lcs_knn",
        title="longest common subsequence of k-nearest neighbours",
        kind="similarity",
        formula="mean over samples of l / k, l the length of the longest common subsequence of the "
        "k nearest others in x and in y, nearest first",
        low=0.0,
        high=1.0,
        invariant_to=INVARIANT,
        differentiable="no",
        cost=COST,
        source="Huh et al. 2024",
        of_itself=1.0,
    )
    ordered: ClassVar[bool] = True

    def compare(self, x: Neighbourhood, y: Neighbourhood) -> Tensor:
        """Length of the longest common subsequence, row by row of its table."""
        same = common(x, y).long()
        lengths = torch.zeros(len(same), self.k + 1, dtype=torch.int64, device=same.device)
        for row in same.unbind(dim=1):
            longer = torch.maximum(lengths[:, 1:], lengths[:, :-1] + row)
            lengths = torch.cat([lengths[:, :1], longer.cummax(dim=1).values], dim=1)
        return lengths[:, -1].double() / self.k


@register
@dataclass(frozen=True)
class EditDistanceKNN(Neighbours):
    """See `edit_distance_knn`."""

    info: ClassVar[Info] = Info(
        name="edit_distance_knn",
        title="edits of k-nearest neighbours",
        kind="similarity",
        formula="mean over samples of 1 - e / k, e the edits (insertions, deletions, replacements) "
        "from the k nearest others in x to those in y, nearest first",
        low=0.0,
        high=1.0,
        invariant_to=INVARIANT,
        differentiable="no",
        cost=COST,
        source="Huh et al. 2024; Levenshtein 1966",
        of_itself=1.0,
    )
    ordered: ClassVar[bool] = True

    def compare(self, x: Neighbourhood, y: Neighbourhood) -> Tensor:
        """One minus the share of edits, row by row of the table of prefixes."""
        other = (~common(x, y)).long()
        steps = torch.arange(self.k + 1, device=other.device)
        edits = steps.expand(len(other), -1)
        for row, different in enumerate(other.unbind(dim=1), start=1):
            without = torch.minimum(edits[:, 1:] + 1, edits[:, :-1] + different)
            first = torch.full_like(without[:, :1], row)
            # An insertion adds 1 to the entry before it.
            edits = (torch.cat([first, without], dim=1) - steps).cummin(dim=1).values + steps
        return 1 - edits[:, -1].double() / self.k


@dataclass(frozen=True, eq=False)
class NearKernel:
    """Neighbours (n, k) of every sample and the row-centred kernel at them (n, k) float64."""

    neighbourhood: Neighbourhood
    kernel: Tensor

    def take(self, rows: Tensor) -> NearKernel:
        """The view after a permutation of samples."""
        rows = rows.to(self.kernel.device)
        return NearKernel(self.neighbourhood.take(rows), self.kernel[rows])


@register
@dataclass(frozen=True)
class CKNNA(SampleMeasure[NearKernel]):
    """See `cknna`."""

    info: ClassVar[Info] = Info(
        name="cknna",
        title="CKNNA",
        kind="similarity",
        formula="a(K, L) / √(a(K, K) a(L, L)), a(K, L) = Σ (K_ij - K̄_i)(L_ij - L̄_i) over i and j "
        "in N(i) and N'(i), K and L cosines of samples, K̄_i means of rows",
        low=-1.0,
        high=1.0,
        invariant_to=INVARIANT,
        differentiable="no",
        cost=COST,
        source="Huh et al. 2024, appendix A",
        of_itself=1.0,
    )
    k: int = 10

    def __post_init__(self) -> None:
        check_count("k", self.k, 1, 2**31)

    def view(self, x: Prepared) -> NearKernel:
        """Neighbours by cosine, and cosines less the mean of their row."""
        found = MutualKNN(k=self.k).view(x)
        unit = unit_rows(x.features.detach().double())
        deviations = unit - unit.mean(dim=0)
        count = max(1, ENTRIES // (self.k * unit.shape[1]))
        parts = [
            torch.einsum("rp,rkp->rk", some, deviations[others])
            for some, others in zip(
                torch.split(unit, count), torch.split(found.neighbours, count), strict=True
            )
        ]
        kernel = torch.cat(parts)
        size = torch.linalg.vector_norm(kernel)
        if float(size) == 0.0:
            raise UndefinedError(f"{x.name}: expected cosines that vary")
        return NearKernel(found, kernel / size)

    def pairs(
        self, left: Sequence[NearKernel], right: Sequence[NearKernel], pairs: Pairs
    ) -> Tensor:
        """Sums over common neighbours."""
        values = []
        for i, j in pairs:
            x, y = left[i], right[j]
            both = common(x.neighbourhood, y.neighbourhood).double()
            values.append(torch.einsum("na,nab,nb->", x.kernel, both, y.kernel))
        return torch.stack(values)


def cycle_knn(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    k: int = 10,
    metric: Metric = "cosine",
) -> Tensor:
    """Cycle k-nearest neighbours: how many samples a step in y and a step in x lead back to.

    A similarity in [0, 1]: the share of samples i that are among the k nearest in x of one of the k
    nearest in y of i. Not symmetric, and below 1 for a representation with itself, where being
    near is not mutual. Arguments and errors as for `mutual_knn`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cycle_knn
        >>> value = cycle_knn(torch.randn(50, 5), torch.randn(50, 8), k=5)

    References:
        Huh et al., "The platonic representation hypothesis", 2024.
    """
    return CycleKNN(k=k, metric=metric)(x, y)


def lcs_knn(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    k: int = 10,
    metric: Metric = "cosine",
) -> Tensor:
    """Longest common subsequence of k nearest neighbours: mean over samples of its length over k.

    A similarity in [0, 1]: neighbours in common count as far as they come in the same order.
    Arguments and errors as for `mutual_knn`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import lcs_knn
        >>> value = lcs_knn(torch.randn(50, 5), torch.randn(50, 8), k=5)

    References:
        Huh et al., "The platonic representation hypothesis", 2024.
    """
    return LCSKNN(k=k, metric=metric)(x, y)


def edit_distance_knn(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    k: int = 10,
    metric: Metric = "cosine",
) -> Tensor:
    """How few edits turn the k nearest neighbours in x into those in y: mean of 1 - e/k.

    A similarity in [0, 1]; e counts insertions, deletions and replacements between the two lists,
    nearest first. Arguments and errors as for `mutual_knn`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import edit_distance_knn
        >>> value = edit_distance_knn(torch.randn(50, 5), torch.randn(50, 8), k=5)

    References:
        Huh et al., "The platonic representation hypothesis", 2024.
        Levenshtein, "Binary codes capable of correcting deletions, insertions, and reversals",
        1966.
    """
    return EditDistanceKNN(k=k, metric=metric)(x, y)


def cknna(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    k: int = 10,
) -> Tensor:
    """Centred kernel nearest-neighbour alignment (CKNNA): CKA of near samples only.

    A similarity in [-1, 1]: a(K, L) / √(a(K, K) a(L, L)) with a(K, L) the sum of
    (K_ij - K̄_i)(L_ij - L̄_i) over all i and those j that are among the k nearest other samples of i
    both in x and in y. K and L are cosines of samples, K̄_i and L̄_i means of their rows.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        k: Neighbours of a sample, 1 to n - 1.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; not differentiable.

    Raises:
        TypeError: An input is not a floating-point tensor, or k not an int.
        UndefinedError: All samples are equal, or all cosines. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf, k out of range.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cknna
        >>> value = cknna(torch.randn(50, 5), torch.randn(50, 8), k=5)

    References:
        Huh et al., "The platonic representation hypothesis", 2024, appendix A.
    """
    return CKNNA(k=k)(x, y)
