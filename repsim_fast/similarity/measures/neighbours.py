"""Measures that compare who is near whom: nearest neighbours of every sample."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from repsim_fast._core.checks import check_choice
from repsim_fast.similarity.base.distances import unit_rows
from repsim_fast.similarity.base.measure import Info, Invariance, check_count, register
from repsim_fast.similarity.base.nearest import nearest
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.streaming.samples import SampleMeasure

Metric = Literal["cosine", "euclidean"]

METRICS: tuple[Metric, ...] = ("cosine", "euclidean")

# Entries of gathered features that are held at once.
ENTRIES = 1 << 24


@dataclass(frozen=True, eq=False)
class Neighbourhood:
    """The k nearest other samples of every sample, and the features."""

    neighbours: Tensor  # (n, k) int64
    features: Tensor  # (n, p), rows of norm 1 for the cosine metric

    def take(self, rows: Tensor) -> Neighbourhood:
        """The view after a permutation of samples."""
        rows = rows.to(self.neighbours.device)
        new_number = torch.empty_like(rows)
        new_number[rows] = torch.arange(len(rows), device=rows.device)
        return Neighbourhood(new_number[self.neighbours[rows]], self.features[rows])


@dataclass(frozen=True)
class Neighbours(SampleMeasure[Neighbourhood]):
    """Mean over samples of a comparison of two neighbourhoods."""

    ordered: ClassVar[bool] = False  # whether the order of neighbours matters
    k: int = 10
    metric: Metric = "cosine"

    def __post_init__(self) -> None:
        check_count("k", self.k, 1, 2**31)
        check_choice("metric", self.metric, METRICS)

    def view(self, x: Prepared) -> Neighbourhood:
        """Neighbours, and features as the metric sees them."""
        check_count("k", self.k, 1, x.n_samples - 1, f", the other samples of {x.name}")
        dtype = x.centered.dtype  # raises where all samples are equal
        features = x.features.detach()
        if self.metric == "euclidean":
            found = nearest(features, self.k, ordered=self.ordered, products=dtype)
            return Neighbourhood(found, features)
        # The nearest unit vectors are those of the largest cosine; samples of zeros, whose cosine
        # is 0, are as far from all as orthogonal ones.
        unit = unit_rows(features.double())
        zero = (unit == 0).all(dim=1).double()
        found = nearest(unit, self.k, apart=zero, ordered=self.ordered, products=dtype)
        return Neighbourhood(found, unit.to(dtype))

    def pairs(
        self, left: Sequence[Neighbourhood], right: Sequence[Neighbourhood], pairs: Pairs
    ) -> Tensor:
        """Means over samples."""
        return torch.stack([self.compare(left[i], right[j]).mean() for i, j in pairs])

    @abstractmethod
    def compare(self, x: Neighbourhood, y: Neighbourhood) -> Tensor:
        """Value (n,) of every sample, float64."""


def common(x: Neighbourhood, y: Neighbourhood) -> Tensor:
    """Whether the a-th neighbour in x is the b-th in y: (n, k, k)."""
    return x.neighbours[:, :, None] == y.neighbours[:, None, :]


def rank_agreement(both: Tensor) -> Tensor:
    """How alike the ranks of common neighbours are, nearer ones counting more: (n,) float64."""
    k = both.shape[1]
    rank = torch.arange(1, k + 1, dtype=torch.float64, device=both.device)
    weight = 2 / ((1 + (rank[:, None] - rank[None, :]).abs()) * (rank[:, None] + rank[None, :]))
    shared = both.sum(dim=(1, 2))
    harmonic = torch.cat([rank.new_zeros(1), (1 / rank).cumsum(0)])[shared]
    score = (both * weight).sum(dim=(1, 2))
    agreement: Tensor = score / harmonic.where(shared > 0, 1.0)
    return agreement


INVARIANT: tuple[Invariance, ...] = ("permutation", "rotation", "scale")
COST = "n² p; n k²"


@register
@dataclass(frozen=True)
class MutualKNN(Neighbours):
    """See `mutual_knn`."""

    info: ClassVar[Info] = Info(
        name="mutual_knn",
        title="mutual k-nearest neighbours",
        kind="similarity",
        formula="mean over samples of |N ∩ N'| / k, N the k nearest other samples",
        low=0.0,
        high=1.0,
        invariant_to=INVARIANT,
        differentiable="no",
        cost=COST,
        source="Huh et al. 2024",
        of_itself=1.0,
    )

    def compare(self, x: Neighbourhood, y: Neighbourhood) -> Tensor:
        """Shared fraction."""
        return common(x, y).sum(dim=(1, 2)).double() / self.k


@register
@dataclass(frozen=True)
class JaccardSimilarity(Neighbours):
    """See `jaccard_similarity`."""

    info: ClassVar[Info] = Info(
        name="jaccard_similarity",
        title="Jaccard similarity",
        kind="similarity",
        formula="mean over samples of s / (2k - s), s = |N ∩ N'| (intersection over union)",
        low=0.0,
        high=1.0,
        invariant_to=INVARIANT,
        differentiable="no",
        cost=COST,
        source="Klabunde et al. 2023 (k-NN Jaccard)",
        of_itself=1.0,
    )

    def compare(self, x: Neighbourhood, y: Neighbourhood) -> Tensor:
        """Intersection over union."""
        shared = common(x, y).sum(dim=(1, 2)).double()
        return shared / (2 * self.k - shared)


@register
@dataclass(frozen=True)
class RankSimilarity(Neighbours):
    """See `rank_similarity`."""

    ordered: ClassVar[bool] = True
    info: ClassVar[Info] = Info(
        name="rank_similarity",
        kind="similarity",
        formula="mean over samples of Σ 2 / ((1 + |r - r'|)(r + r')) / Σ 1/m over common "
        "neighbours of ranks r and r', m = 1 … their number; 0 if there is none",
        low=0.0,
        high=1.0,
        invariant_to=INVARIANT,
        differentiable="no",
        cost=COST,
        source="Wang et al. 2022; Klabunde et al. 2023",
        of_itself=1.0,
    )

    def compare(self, x: Neighbourhood, y: Neighbourhood) -> Tensor:
        """Agreement of ranks."""
        return rank_agreement(common(x, y))


@register
@dataclass(frozen=True)
class JointRankJaccard(Neighbours):
    """See `joint_rank_jaccard`."""

    ordered: ClassVar[bool] = True
    info: ClassVar[Info] = Info(
        name="joint_rank_jaccard",
        title="joint rank and Jaccard similarity",
        kind="similarity",
        formula="mean over samples of their Jaccard similarity times their rank similarity",
        low=0.0,
        high=1.0,
        invariant_to=INVARIANT,
        differentiable="no",
        cost=COST,
        source="Wang et al. 2022; Klabunde et al. 2023",
        of_itself=1.0,
    )

    def compare(self, x: Neighbourhood, y: Neighbourhood) -> Tensor:
        """Product of the two for each sample."""
        both = common(x, y)
        shared = both.sum(dim=(1, 2)).double()
        return shared / (2 * self.k - shared) * rank_agreement(both)


@register
@dataclass(frozen=True)
class SecondOrderCosine(SampleMeasure[Neighbourhood]):
    """See `second_order_cosine`."""

    info: ClassVar[Info] = Info(
        name="second_order_cosine",
        title="second-order cosine similarity",
        kind="similarity",
        formula="mean over samples i of the cosine of (s_ij) and (s'_ij), j in N or N', s the "
        "cosine similarity of samples",
        low=-1.0,
        high=1.0,
        invariant_to=INVARIANT,
        differentiable="no",
        cost="n² p; n k p",
        source="Hamilton et al. 2016",
        of_itself=1.0,
    )
    k: int = 10

    def __post_init__(self) -> None:
        check_count("k", self.k, 1, 2**31)

    def view(self, x: Prepared) -> Neighbourhood:
        """Neighbours by cosine."""
        return MutualKNN(k=self.k).view(x)

    def pairs(
        self, left: Sequence[Neighbourhood], right: Sequence[Neighbourhood], pairs: Pairs
    ) -> Tensor:
        """Means over samples."""
        return torch.stack([self.compare(left[i], right[j]).mean() for i, j in pairs])

    def compare(self, x: Neighbourhood, y: Neighbourhood) -> Tensor:
        """Cosine (n,) of similarities to the union of neighbours."""
        union = torch.cat([x.neighbours, y.neighbours], dim=1)  # (n, 2k)
        twice = common(x, y).any(dim=1)  # neighbours in y that x has already
        counted = torch.cat([torch.ones_like(twice), ~twice], dim=1).double()
        ours = _similarities(x.features, union) * counted
        theirs = _similarities(y.features, union) * counted
        size = torch.linalg.vector_norm(ours, dim=1) * torch.linalg.vector_norm(theirs, dim=1)
        cosine: Tensor = (ours * theirs).sum(dim=1) / size.where(size > 0, 1.0)
        return cosine


def _similarities(features: Tensor, neighbours: Tensor) -> Tensor:
    """Inner products (n, m) float64 of every sample with some others."""
    n, m = neighbours.shape
    rows = max(1, ENTRIES // (m * features.shape[1]))
    parts = [
        torch.einsum("rp,rmp->rm", features[start : start + rows], features[some])
        for start, some in zip(range(0, n, rows), torch.split(neighbours, rows), strict=True)
    ]
    return torch.cat(parts).double()


def mutual_knn(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    k: int = 10,
    metric: Metric = "cosine",
) -> Tensor:
    """Mutual k-nearest-neighbour overlap: mean over samples of |N ∩ N'| / k.

    A similarity in [0, 1]; k / (n - 1) is expected of unrelated representations.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        k: Neighbours of a sample, 1 to n - 1; the sample itself is none. Which of equally near ones
            count is not specified.
        metric: ``"cosine"`` of the features as they are (a sample of zeros has cosine 0 with all),
            or ``"euclidean"`` distance, which makes the measure invariant to translation too.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; not differentiable.

    Raises:
        TypeError: An input is not a floating-point tensor, or k not an int.
        UndefinedError: All samples are equal. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf, k out of range, unknown metric.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import mutual_knn
        >>> value = mutual_knn(torch.randn(50, 5), torch.randn(50, 8), k=5)

    References:
        Huh et al., "The platonic representation hypothesis", 2024, section 3.
    """
    return MutualKNN(k=k, metric=metric)(x, y)


def jaccard_similarity(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    k: int = 10,
    metric: Metric = "cosine",
) -> Tensor:
    """k-NN Jaccard similarity: mean over samples of |N ∩ N'| / |N ∪ N'|.

    A similarity in [0, 1]. Arguments and errors as for `mutual_knn`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import jaccard_similarity
        >>> value = jaccard_similarity(torch.randn(50, 5), torch.randn(50, 8))

    References:
        Klabunde et al., "Similarity of neural network models: a survey", 2023.
    """
    return JaccardSimilarity(k=k, metric=metric)(x, y)


def rank_similarity(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    k: int = 10,
    metric: Metric = "cosine",
) -> Tensor:
    """Rank similarity: how alike the order of common nearest neighbours is.

    A similarity in [0, 1]: mean over samples of Σ 2 / ((1 + |r - r'|)(r + r')) over the common
    neighbours, r and r' their ranks by nearness, divided by its largest value Σ 1/m, m from 1 to
    the number of common neighbours; 0 for a sample without any. Arguments and errors as for
    `mutual_knn`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import rank_similarity
        >>> value = rank_similarity(torch.randn(50, 5), torch.randn(50, 8))

    References:
        Wang et al., "Understanding and characterizing instability of node embeddings", 2022.
        Klabunde et al., "Similarity of neural network models: a survey", 2023.
    """
    return RankSimilarity(k=k, metric=metric)(x, y)


def joint_rank_jaccard(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    k: int = 10,
    metric: Metric = "cosine",
) -> Tensor:
    """Mean over samples of their Jaccard similarity times their rank similarity.

    A similarity in [0, 1]. Arguments and errors as for `mutual_knn`; the factors as for
    `jaccard_similarity` and `rank_similarity`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import joint_rank_jaccard
        >>> value = joint_rank_jaccard(torch.randn(50, 5), torch.randn(50, 8))

    References:
        Klabunde et al., "Similarity of neural network models: a survey", 2023.
    """
    return JointRankJaccard(k=k, metric=metric)(x, y)


def second_order_cosine(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    k: int = 10,
) -> Tensor:
    """Second-order cosine similarity: do samples have the same similarities to their neighbours?

    A similarity in [-1, 1]: the mean over samples i of the cosine between the vectors of cosine
    similarities of i to all samples that are among its k nearest by cosine in x or in y, taken in x
    and in y. Arguments and errors as for `mutual_knn`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import second_order_cosine
        >>> value = second_order_cosine(torch.randn(50, 5), torch.randn(50, 8))

    References:
        Hamilton et al., "Cultural shift or linguistic drift?", 2016.
        Klabunde et al., "Similarity of neural network models: a survey", 2023.
    """
    return SecondOrderCosine(k=k)(x, y)
