"""Representational similarity analysis and other comparisons of distances between samples."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from repsim_fast._core.checks import check_choice
from repsim_fast.similarity.base.distances import (
    below_diagonal,
    cosine_dissimilarities,
    distances,
    squared_distances,
)
from repsim_fast.similarity.base.estimator import known_chance
from repsim_fast.similarity.base.kernels import unit_triangle
from repsim_fast.similarity.base.measure import Info, register
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.views import Triangle, inner_products
from repsim_fast.similarity.streaming.samples import SampleMeasure

RDM = Literal["correlation", "euclidean", "sqeuclidean", "cosine"]
Comparison = Literal[
    "spearman", "rho_a", "tau_a", "pearson", "cosine", "whitened_pearson", "whitened_cosine"
]

RDMS: tuple[RDM, ...] = ("correlation", "euclidean", "sqeuclidean", "cosine")
COMPARISONS: tuple[Comparison, ...] = (
    "spearman",
    "rho_a",
    "tau_a",
    "pearson",
    "cosine",
    "whitened_pearson",
    "whitened_cosine",
)

# Those that see the order of dissimilarities only, and those of dissimilarities less their mean.
OF_RANKS: tuple[Comparison, ...] = ("spearman", "rho_a", "tau_a")
OF_DEVIATIONS: tuple[Comparison, ...] = (*OF_RANKS, "pearson", "whitened_pearson")

# Features of a sample, and dissimilarities, that differ by less than this, in units of rounding,
# are equal.
EQUAL_ULPS = 8

# Dissimilarities that differ by at most this share of themselves count as equal: about sixteen
# times what products in float64 leave of them (base/distances.py).
TIE = 2.0**-36


def dissimilarities(x: Prepared, rdm: RDM) -> Tensor:
    """Representational dissimilarity matrix (n, n)."""
    if rdm == "euclidean":
        return distances(x)
    if rdm == "sqeuclidean":
        return squared_distances(x)
    features = x.features.double()
    sizes = torch.linalg.vector_norm(features.detach(), dim=1)
    left = sizes
    if rdm == "correlation":
        if x.n_features == 2:
            raise UndefinedError(
                f"{x.name}: correlations of samples need at least 3 features, those of 2 are 1 "
                "or -1; use rdm 'cosine' or 'euclidean'"
            )
        features = features - features.mean(dim=1, keepdim=True)
        left = torch.linalg.vector_norm(features.detach(), dim=1)
        # Equal features leave the rounding of their mean, which is no direction.
        varied = left > EQUAL_ULPS * torch.finfo(features.dtype).eps * sizes
        features = features.where(varied[:, None], 0.0)
        left = left.where(varied, sizes)
    rounding = x.rounding * sizes / left.where(left > 0, 1.0)
    return cosine_dissimilarities(features, x.features.dtype, rounding)


def ranks(
    values: Tensor,  # (m,) float64, not negative
) -> Tensor:
    """Ranks from 1 in float64; values that differ by rounding share the mean of theirs."""
    ordered, order = values.sort()
    new = torch.ones_like(ordered, dtype=torch.bool)
    new[1:] = ordered[1:] - ordered[:-1] > TIE * ordered[1:]
    group = new.cumsum(0) - 1
    last = torch.bincount(group).cumsum(0)
    first = torch.cat([last.new_zeros(1), last[:-1]])
    mean = (first + last + 1).double() / 2
    result = torch.empty(values.shape, dtype=torch.float64, device=values.device)
    result[order] = mean[group]
    return result


@register
@dataclass(frozen=True)
class RSA(SampleMeasure[Triangle]):
    """See `rsa`."""

    info: ClassVar[Info] = Info(
        name="rsa",
        title="RSA",
        kind="similarity",
        formula="Spearman or Pearson correlation, rho-a, tau-a or cosine, whitened or not, of the "
        "dissimilarities of all pairs of samples: 1 - correlation, 1 - cosine, Euclidean distance "
        "or its square of their features",
        low=-1.0,
        high=1.0,
        invariant_to=("permutation", "scale"),
        differentiable="yes, except of ranks (spearman, rho_a, tau_a)",
        cost="n² p + n² log n; n² (n² log n for tau_a)",
        source="Kriegeskorte et al. 2008; Nili et al. 2014 (tau-a); Schütt et al. 2023 (rho-a); "
        "Diedrichsen et al. 2021 (whitened)",
        of_itself=1.0,
    )
    rdm: RDM = "correlation"
    comparison: Comparison = "spearman"

    @property
    def has_gradient(self) -> bool:
        """Ranks have none."""
        return self.comparison not in OF_RANKS

    def __post_init__(self) -> None:
        check_choice("rdm", self.rdm, RDMS)
        check_choice("comparison", self.comparison, COMPARISONS)
        if self.comparison in ("rho_a", "tau_a"):  # ties count as disagreement, also with itself
            object.__setattr__(self, "info", dataclasses.replace(self.info, of_itself=None))

    def view(self, x: Prepared) -> Triangle:
        """Dissimilarities as the comparison sees them, scaled so that it is an inner product; for
        tau_a their ranks."""
        dtype = x.centered.dtype  # raises where all samples are equal
        if self.comparison in OF_RANKS:
            # In float64, and of distances their squares, which rank the same: those of binary
            # features, or of samples that come twice, are equal, and must be ties.
            rdm = "sqeuclidean" if self.rdm == "euclidean" else self.rdm
            matrix = dissimilarities(x.double(), rdm).detach()
        else:
            matrix = dissimilarities(x, self.rdm)
        values = below_diagonal(matrix)
        mean = values.mean() if self.comparison in OF_DEVIATIONS else values.new_zeros(())
        varied = values - mean
        left, whole = (
            float(torch.linalg.vector_norm(each.detach(), dtype=torch.float64))
            for each in (varied, values)
        )
        if left <= EQUAL_ULPS * torch.finfo(x.dtype).eps * whole:
            raise UndefinedError(f"{x.name}: expected dissimilarities that vary, got equal ones")
        if self.comparison.startswith("whitened"):
            # The covariance of squared distances of independent samples, inverted, is a constant
            # times what double centring does to their inner products.
            return unit_triangle(x, lambda _: (matrix - mean).fill_diagonal_(0.0), "double")
        if self.comparison in OF_RANKS:
            varied = ranks(values)
            if self.comparison == "tau_a":
                return Triangle(varied, x.n_samples)
        varied = varied - varied.mean() if self.comparison in OF_DEVIATIONS else varied
        norm = torch.linalg.vector_norm(varied, dtype=torch.float64)
        if self.comparison == "rho_a":  # as if there were no ties
            norm = norm.new_tensor((len(varied) ** 3 - len(varied)) / 12).sqrt()
        return Triangle((varied / norm.to(varied.dtype)).to(dtype), x.n_samples)

    def pairs(self, left: Sequence[Triangle], right: Sequence[Triangle], pairs: Pairs) -> Tensor:
        """Correlations."""
        if self.comparison == "tau_a":
            return torch.stack([tau_a(left[i].vector, right[j].vector) for i, j in pairs])
        return inner_products(left, right, pairs)


def tau_a(
    ours: Tensor,  # (m,)
    theirs: Tensor,  # (m,)
) -> Tensor:
    """Kendall's τ_a: (concordant - discordant pairs of entries) / all, scalar float64."""
    from scipy.stats import kendalltau  # here, as it takes longer to import than this package

    of_untied = 1.0
    for values in (ours, theirs):
        tied = torch.unique(values, return_counts=True)[1].double()
        total = len(values) * (len(values) - 1)
        of_untied *= float((total - (tied * (tied - 1)).sum()) / total) ** 0.5
    tau_b = kendalltau(ours.cpu().numpy(), theirs.cpu().numpy(), variant="b").statistic
    return torch.tensor(tau_b * of_untied, dtype=torch.float64, device=ours.device)


@register
@dataclass(frozen=True)
class DistanceCorrelation(SampleMeasure[Triangle]):
    """See `distance_correlation`."""

    info: ClassVar[Info] = Info(
        name="distance_correlation",
        kind="similarity",
        formula="√(<A, B> / (‖A‖ ‖B‖)), A and B the double-centred Euclidean distance matrices",
        low=0.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="where it is not 0",
        cost="n² p; n²",
        source="Székely et al. 2007",
        of_itself=1.0,
    )

    def view(self, x: Prepared) -> Triangle:
        """Double-centred distances."""
        return unit_triangle(x, distances, "double")

    def pairs(self, left: Sequence[Triangle], right: Sequence[Triangle], pairs: Pairs) -> Tensor:
        """Roots of distance covariances, which are not negative up to rounding."""
        return inner_products(left, right, pairs).clamp_min(0.0).sqrt()


@register
@dataclass(frozen=True)
class BiasCorrectedDistanceCorrelation(SampleMeasure[Triangle]):
    """See `bias_corrected_distance_correlation`."""

    info: ClassVar[Info] = Info(
        name="bias_corrected_distance_correlation",
        title="bias-corrected distance correlation",
        kind="similarity",
        formula="<A, B> / (‖A‖ ‖B‖), A and B the U-centred Euclidean distance matrices",
        low=-1.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="yes",
        cost="n² p; n²",
        source="Székely and Rizzo 2013, 2014",
        of_itself=1.0,
    )
    min_samples: ClassVar[int] = 4

    @property
    def known_chance(self) -> float | None:
        """That of U-centred matrices."""
        return known_chance("unbiased")

    def view(self, x: Prepared) -> Triangle:
        """U-centred distances."""
        return unit_triangle(x, distances, "unbiased")

    def pairs(self, left: Sequence[Triangle], right: Sequence[Triangle], pairs: Pairs) -> Tensor:
        """Cosines."""
        return inner_products(left, right, pairs)


@register
@dataclass(frozen=True)
class RSMNormDifference(SampleMeasure[Triangle]):
    """See `rsm_norm_difference`."""

    info: ClassVar[Info] = Info(
        name="rsm_norm_difference",
        title="RSM norm difference",
        kind="distance",
        formula="‖Dₓ - Dᵧ‖, Frobenius norm, D the Euclidean distances between samples",
        low=0.0,
        high=math.inf,
        invariant_to=("permutation", "rotation", "translation"),
        differentiable="where it is not 0",
        cost="n² p; n²",
        source="Yin and Shen 2018; Klabunde et al. 2023",
        of_itself=0.0,
        metric=True,
    )

    def view(self, x: Prepared) -> Triangle:
        """Distances below the diagonal, not scaled."""
        return Triangle(below_diagonal(distances(x)), x.n_samples)

    def pairs(self, left: Sequence[Triangle], right: Sequence[Triangle], pairs: Pairs) -> Tensor:
        """Norms; each entry below the diagonal stands for two."""
        return torch.stack(
            [
                math.sqrt(2)
                * torch.linalg.vector_norm(left[i].vector - right[j].vector, dtype=torch.float64)
                for i, j in pairs
            ]
        )


def rsa(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    rdm: RDM = "correlation",
    comparison: Comparison = "spearman",
) -> Tensor:
    """Representational similarity analysis: how alike the dissimilarities of samples are.

    A similarity in [-1, 1] ([0, 1] for nonnegative dissimilarities compared by cosine): the
    correlation, over all n(n-1)/2 pairs of samples, of the dissimilarity of the two samples in x
    with that in y.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        rdm: Dissimilarity of two samples: ``"correlation"``, 1 - Pearson correlation of their
            features; ``"cosine"``, 1 - cosine of the features as they are (a sample of zeros, or of
            equal features for correlation, has dissimilarity 1 to all); ``"euclidean"``, the
            distance, not squared; ``"sqeuclidean"``, its square, which RSA tools such as rsatoolbox
            call Euclidean (there divided by the number of features, which no comparison sees).
        comparison: ``"spearman"`` rank correlation (ties share mean ranks); ``"rho_a"``, that as
            expected if ties were broken at random; ``"tau_a"``, Kendall's, in which a tie agrees
            with nothing; ``"pearson"`` correlation; ``"cosine"``; ``"whitened_pearson"`` and
            ``"whitened_cosine"``, less what dissimilarities of the same sample have in common:
            vᵀV⁻¹w / √(vᵀV⁻¹v wᵀV⁻¹w), V the covariance of squared distances of unrelated samples.
            Whitened cosine of squared Euclidean distances is biased linear CKA.

    Returns:
        Scalar, float64 if either representation is, otherwise float32. Differentiable except for
        ranks, which warn where a gradient is asked for. With ties ρ_a and τ_a of a representation
        with itself are below 1.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: All samples are equal, or all dissimilarities (as of collinear samples for
            cosine), or correlations are those of 2 features. A ValueError.
        ValueError: Shapes do not fit, fewer than 3 samples, NaN or Inf, an unknown option.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import rsa
        >>> value = rsa(torch.randn(50, 5), torch.randn(50, 8), rdm="euclidean")

    References:
        Kriegeskorte et al., "Representational similarity analysis - connecting the branches of
        systems neuroscience", 2008.
        Nili et al., "A toolbox for representational similarity analysis", 2014 (τ_a).
        Schütt et al., "Statistical inference on representational geometries", 2023 (ρ_a).
        Diedrichsen et al., "Comparing representational geometries using whitened unbiased-distance-
        matrix similarity", 2021.
    """
    return RSA(rdm=rdm, comparison=comparison)(x, y)


def distance_correlation(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Distance correlation: √(<A, B> / (‖A‖ ‖B‖)) of double-centred distance matrices.

    A similarity in [0, 1] that, in the limit of many samples, is 0 only for independent
    representations; with few samples and many features it is far above 0 for any (biased form).

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
        >>> from repsim_fast.similarity import distance_correlation
        >>> value = distance_correlation(torch.randn(50, 5), torch.randn(50, 8))

    References:
        Székely et al., "Measuring and testing dependence by correlation of distances", 2007.
    """
    return DistanceCorrelation()(x, y)


def bias_corrected_distance_correlation(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Bias-corrected distance correlation: <A, B> / (‖A‖ ‖B‖) of U-centred distance matrices.

    A similarity in [-1, 1], an estimate of the square of `distance_correlation` of many samples:
    about 0 for independent representations however few samples and many features there are.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; differentiable.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant, or all its distances are equal. A ValueError.
        ValueError: Shapes do not fit, fewer than 4 samples, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import bias_corrected_distance_correlation
        >>> value = bias_corrected_distance_correlation(torch.randn(50, 5), torch.randn(50, 8))

    References:
        Székely and Rizzo, "The distance correlation t-test of independence in high dimension",
        2013.
        Székely and Rizzo, "Partial distance correlation with methods for dissimilarities", 2014.
    """
    return BiasCorrectedDistanceCorrelation()(x, y)


def rsm_norm_difference(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Frobenius norm of the difference of two Euclidean distance matrices.

    A distance in [0, ∞), in the unit of the features times n.

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
        >>> from repsim_fast.similarity import rsm_norm_difference
        >>> value = rsm_norm_difference(torch.randn(50, 5), torch.randn(50, 8))

    References:
        Yin and Shen, "On the dimensionality of word embedding", 2018 (for inner products).
        Klabunde et al., "Similarity of neural network models: a survey", 2023.
    """
    return RSMNormDifference()(x, y)
