"""Measures that match features or samples one by one: permutations, best partners, cosines."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast.ops import cross_gram
from repsim_fast.similarity.base import spectral
from repsim_fast.similarity.base.measure import Info, Invariance, register
from repsim_fast.similarity.base.pairs import Batch, Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.transport import transport
from repsim_fast.similarity.base.views import Factor, Rows, factors, from_products
from repsim_fast.similarity.streaming.samples import SampleMeasure

# Share of the largest singular value of XᵀY below which float32 products leave a rotation too few
# digits in the direction of the smallest; every sample counts alike, large ones and small ones.
RESOLVED = 1e-2

# Features that vary by less than this, in units of rounding of their own size, are constant.
CONSTANT_ULPS = 8


def assignment(
    scores: Tensor,  # (p, q)
) -> tuple[Tensor, Tensor]:
    """One-to-one partners with the largest sum of scores: rows and columns (min(p, q),)."""
    # Here, as it takes longer to import than all of this package.
    from scipy.optimize import linear_sum_assignment

    found = linear_sum_assignment(scores.detach().cpu().double().numpy(), maximize=True)
    rows, columns = (torch.as_tensor(indices) for indices in found)
    return rows.to(scores.device), columns.to(scores.device)


def unpadded(batch: Batch) -> list[Tensor]:
    """The products without the zeros around them."""
    if batch.rows is None or batch.columns is None:
        return list(batch.products)
    sizes = zip(batch.products, batch.rows, batch.columns, strict=True)
    return [product[:height, :width] for product, height, width in sizes]


def unit_features(x: Prepared) -> Tensor:
    """Features of mean 0 and norm 1; constant ones, which correlate with nothing, left out."""
    norms = torch.linalg.vector_norm(x.centered, dim=0, dtype=torch.float64)
    sizes = torch.linalg.vector_norm(x.features.detach(), dim=0, dtype=torch.float64)
    ulps = CONSTANT_ULPS * torch.finfo(x.features.dtype).eps
    varied = (norms.detach() > ulps * sizes).nonzero().flatten()
    if not len(varied):
        raise UndefinedError(f"{x.name}: expected features that vary, got constant ones")
    unit: Tensor = x.centered[:, varied] / norms[varied].to(x.centered.dtype)
    return unit


@dataclass(frozen=True)
class _CorrelationMatch(SampleMeasure[Factor]):
    """A function of the correlations of features."""

    def view(self, x: Prepared) -> Factor:
        """Features of mean 0 and norm 1."""
        unit = unit_features(x)
        return Factor(unit, unit.new_tensor(unit.shape[1], dtype=torch.float64))


_MATCHED: tuple[Invariance, ...] = ("permutation", "scale", "translation")


@register
@dataclass(frozen=True)
class HardCorrelationMatch(_CorrelationMatch):
    """See `hard_correlation_match`."""

    info: ClassVar[Info] = Info(
        name="hard_correlation_match",
        kind="similarity",
        formula="mean correlation of features matched one to one so that their sum is largest",
        low=-1.0,
        high=1.0,
        invariant_to=_MATCHED,
        differentiable="almost everywhere",
        cost="n p; n p² + p³",
        source="Li et al. 2015",
        of_itself=1.0,
    )

    def pairs(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> Tensor:
        """Mean over matched features."""

        def mean(batch: Batch) -> Tensor:
            return torch.stack([table[assignment(table)].mean() for table in unpadded(batch)])

        return from_products(*factors(left, right), pairs, mean)


@register
@dataclass(frozen=True)
class SoftCorrelationMatch(_CorrelationMatch):
    """See `soft_correlation_match`."""

    info: ClassVar[Info] = Info(
        name="soft_correlation_match",
        kind="similarity",
        formula="mean over features of the largest correlation with one of the other side, the two "
        "directions averaged",
        low=-1.0,
        high=1.0,
        invariant_to=_MATCHED,
        differentiable="almost everywhere",
        cost="n p; n p²",
        source="Li et al. 2015",
        of_itself=1.0,
    )

    def pairs(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> Tensor:
        """Mean of both directions."""

        def mean(batch: Batch) -> Tensor:
            best = [(t.amax(dim=1).mean() + t.amax(dim=0).mean()) / 2 for t in unpadded(batch)]
            return torch.stack(best)

        return from_products(*factors(left, right), pairs, mean)


@register
@dataclass(frozen=True)
class PermutationProcrustesDistance(SampleMeasure[Rows]):
    """See `permutation_procrustes_distance`."""

    info: ClassVar[Info] = Info(
        name="permutation_procrustes_distance",
        title="permutation Procrustes distance",
        kind="distance",
        formula="min ‖XP - Y‖ over permutations P, features not centred, the narrower side padded "
        "with zeros",
        low=0.0,
        high=math.inf,
        invariant_to=("permutation",),
        differentiable="almost everywhere",
        cost="0; n p² + p³",
        source="Williams et al. 2021; Klabunde et al. 2023",
        of_itself=0.0,
        metric=True,
    )

    def view(self, x: Prepared) -> Rows:
        """The features."""
        _ = x.raw_cutoff  # raises for NaN and Inf
        return Rows(x)

    def pairs(self, left: Sequence[Rows], right: Sequence[Rows], pairs: Pairs) -> Tensor:
        """Norms of the differences of matched features, and of those left over."""
        values = []
        for i, j in pairs:
            x, y = left[i].prepared.features, right[j].prepared.features
            rows, columns = assignment(x.mT @ y)
            parts = [x[:, rows] - y[:, columns]]
            for side, taken in ((x, rows), (y, columns)):
                rest = torch.ones(side.shape[1], dtype=torch.bool, device=side.device)
                rest[taken] = False
                parts.append(side[:, rest])
            norms = [torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts]
            values.append(torch.linalg.vector_norm(torch.stack(norms)))
        return torch.stack(values)


@register
@dataclass(frozen=True)
class SoftMatchingDistance(SampleMeasure[Rows]):
    """See `soft_matching_distance`."""

    info: ClassVar[Info] = Info(
        name="soft_matching_distance",
        title="soft-matching distance",
        kind="distance",
        formula="√min Σ P_uv ‖x_u - y_v‖² over P ≥ 0 with rows summing to 1/p and columns to 1/q, "
        "features not centred (`standardise`: of mean 0 and norm 1)",
        low=0.0,
        high=math.inf,
        invariant_to=("permutation",),
        differentiable="almost everywhere",
        cost="0; n p² + p³ (more for unequal widths)",
        source="Khosla and Williams 2024",
        of_itself=0.0,
        metric=True,
    )
    standardise: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.standardise, bool):
            kind = type(self.standardise).__name__
            raise TypeError(f"standardise: expected a bool, got {kind}")

    def view(self, x: Prepared) -> Rows:
        """The features."""
        _ = x.raw_cutoff  # raises for NaN and Inf
        return Rows(Prepared(unit_features(x), name=x.name) if self.standardise else x)

    def pairs(self, left: Sequence[Rows], right: Sequence[Rows], pairs: Pairs) -> Tensor:
        """Roots of the costs of the best plans."""
        values = []
        for i, j in pairs:
            x, y = (view.prepared.features.double() for view in (left[i], right[j]))
            sizes = [side.detach().square().sum(dim=0) for side in (x, y)]
            products = cross_gram(x.detach(), y.detach())
            rows, columns, weights = transport(sizes[0][:, None] + sizes[1] - 2 * products)
            apart = x[:, rows] - y[:, columns]
            values.append(torch.linalg.vector_norm(apart * weights.sqrt()))
        return torch.stack(values)


@dataclass(frozen=True, eq=False)
class _Samples(Factor):
    """Features, and as size the norm of every sample (n,)."""

    def take(self, rows: Tensor) -> _Samples:
        """The view after a permutation of samples."""
        return _Samples(self.factor[rows], self.size[rows])


@register
@dataclass(frozen=True)
class AlignedCosine(SampleMeasure[_Samples]):
    """See `aligned_cosine`."""

    info: ClassVar[Info] = Info(
        name="aligned_cosine",
        title="aligned cosine similarity",
        kind="similarity",
        formula="mean over samples of cos(Qxᵢ, yᵢ), Q the rotation of smallest ‖XQ - Y‖; features "
        "not centred, the narrower side padded with zeros",
        low=-1.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale"),
        differentiable="where XᵀY has distinct singular values",
        cost="n p (n² p for p > n); n p² + p³",
        source="Hamilton et al. 2016",
        of_itself=1.0,
    )

    def view(self, x: Prepared) -> _Samples:
        """Features (or as few columns with the same Gram) and the norms of samples (n,)."""
        if x.raw_cutoff == 0.0:
            raise UndefinedError(f"{x.name}: expected features, got only zeros")
        norms = torch.linalg.vector_norm(x.features, dim=1, dtype=torch.float64)
        return _Samples(x.raw_scores, norms)

    def pairs(self, left: Sequence[_Samples], right: Sequence[_Samples], pairs: Pairs) -> Tensor:
        """Means over the samples that are not zero on either side."""

        def mean(batch: Batch) -> Tensor:
            u, sizes, vt = spectral.singular_vectors(batch)
            values = []
            for b, (i, j) in enumerate(pairs[k] for k in batch.numbers):
                x, y = left[i], right[j]
                width, height = x.factor.shape[1], y.factor.shape[1]
                rotation = u[b, :width] @ vt[b, :, :height]
                smallest = sizes[b, min(width, height) - 1].detach()
                single = x.factor.dtype == torch.float32
                if single and float(smallest) < RESOLVED * float(sizes[b, 0].detach()):
                    rotation = _rotation(x.factor.double(), y.factor.double())
                dots = ((x.factor @ rotation.to(x.factor.dtype)) * y.factor).sum(
                    dim=1, dtype=torch.float64
                )
                norms = x.size * y.size
                known = norms > 0
                if not bool(known.any()):
                    raise UndefinedError("x: no sample is other than zero in both representations")
                values.append((dots[known] / norms[known]).mean())
            return torch.stack(values)

        return from_products(*factors(left, right), pairs, mean)


def _rotation(x: Tensor, y: Tensor) -> Tensor:
    """The rotation (p, q) that brings x (n, p) next to y (n, q)."""
    u, _, vt = spectral.singular_vectors(Batch([0], cross_gram(x, y)[None]))
    return u[0] @ vt[0]


def hard_correlation_match(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Mean correlation of features matched one to one, the matching with the largest sum.

    A similarity in [-1, 1]. Of the wider representation, features without a partner do not count;
    constant features (dead units) count on neither side. Correlations are signed.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.

    Returns:
        Scalar, float64 if either representation is, otherwise float32.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import hard_correlation_match
        >>> x = torch.randn(50, 5)
        >>> bool(torch.isclose(hard_correlation_match(x, x.flip(1)), torch.tensor(1.0)))
        True

    References:
        Li et al., "Convergent learning: do different neural networks learn the same
        representations?", 2015.
    """
    return HardCorrelationMatch()(x, y)


def soft_correlation_match(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Mean over features of the largest correlation with one of the other side.

    A similarity in [-1, 1]; the values of both directions are averaged. Arguments, errors and
    constant features as for `hard_correlation_match`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import soft_correlation_match
        >>> value = soft_correlation_match(torch.randn(50, 5), torch.randn(50, 8))

    References:
        Li et al., "Convergent learning: do different neural networks learn the same
        representations?", 2015.
    """
    return SoftCorrelationMatch()(x, y)


def permutation_procrustes_distance(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Distance after the best reordering of features: min ‖XP - Y‖ over permutations P.

    A metric in [0, ∞) in the unit of the features times √n. Features are neither centred nor
    scaled; the narrower representation is padded with features of zeros.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.

    Returns:
        Scalar, float64 if either representation is, otherwise float32.

    Raises:
        TypeError: An input is not a floating-point tensor.
        ValueError: Shapes do not fit, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import permutation_procrustes_distance
        >>> x = torch.randn(50, 5)
        >>> float(permutation_procrustes_distance(x, x.flip(1)))
        0.0

    References:
        Williams et al., "Generalized shape metrics on neural representations", 2021.
        Klabunde et al., "Similarity of neural network models: a survey", 2023.
    """
    return PermutationProcrustesDistance()(x, y)


def soft_matching_distance(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    standardise: bool = False,
) -> Tensor:
    """Distance of features matched softly: the optimal transport between the two sets of them.

    A metric in [0, ∞) for representations of any widths: the root of the least Σ P_uv ‖x_u - y_v‖²,
    where each of p features of x hands out 1/p and each of q of y takes 1/q. For equal widths it is
    `permutation_procrustes_distance` over √p. Exact, by assignment where the least common multiple
    of the widths is at most four times the larger, and by a linear program otherwise.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        standardise: Whether features are first centred and scaled to norm 1, so that the square is
            2 less twice the soft-matching correlation; constant features are left out. Otherwise
            they are neither centred nor scaled.

    Returns:
        Scalar, float64 if either representation is, otherwise float32. Differentiable almost
        everywhere.

    Raises:
        TypeError: An input is not a floating-point tensor, or standardise not a bool.
        UndefinedError: Standardised, and a representation is constant. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import soft_matching_distance
        >>> x = torch.randn(50, 5)
        >>> float(soft_matching_distance(x, x.repeat(1, 2)))  # every feature twice
        0.0

    References:
        Khosla and Williams, "Soft matching distance: a metric on neural representations that
        captures single-neuron tuning", 2024.
    """
    return SoftMatchingDistance(standardise=standardise)(x, y)


def aligned_cosine(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Mean cosine of samples after the best rotation of x onto y.

    A similarity in [-1, 1]: mean over samples of cos(Qxᵢ, yᵢ) with the orthogonal Q of smallest
    ‖XQ - Y‖, features not centred, the narrower side padded with zeros. Samples that are zero on
    either side do not count. Where XᵀY has less than full rank the rotation is not unique.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.

    Returns:
        Scalar, float64 if either representation is, otherwise float32.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is zero. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import aligned_cosine
        >>> value = aligned_cosine(torch.randn(50, 5), torch.randn(50, 8))

    References:
        Hamilton et al., "Diachronic word embeddings reveal statistical laws of semantic change",
        2016.
    """
    return AlignedCosine()(x, y)
