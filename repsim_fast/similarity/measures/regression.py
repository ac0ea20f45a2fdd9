"""How much of one representation another explains: linear regression, subspaces, ridge (GULP)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast.ops import centered_gram
from repsim_fast.similarity.base.measure import (
    Info,
    check_not_saturated,
    check_range,
    register,
)
from repsim_fast.similarity.base.pairs import Batch, Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.views import Factor, energy, factors, from_products, sizes
from repsim_fast.similarity.measures.cca import MANY, caution_of_few_samples
from repsim_fast.similarity.streaming.samples import SampleMeasure


@dataclass(frozen=True, eq=False)
class _Predictor:
    """Centred features, of which a share is explained, and the basis that explains others'."""

    target: Factor
    basis: Tensor

    def take(self, rows: Tensor) -> _Predictor:
        """The view after a permutation of samples."""
        return _Predictor(self.target.take(rows), self.basis[rows])


@register
@dataclass(frozen=True)
class LinearRegression(SampleMeasure[_Predictor]):
    """See `linear_regression`."""

    info: ClassVar[Info] = Info(
        name="linear_regression",
        title="linear regression R²",
        kind="similarity",
        formula="R² = ‖QᵧᵀX‖² / ‖X‖², the share of the variance of x that a linear function of y "
        "explains",
        low=0.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="with full column rank",
        cost="n p²; n p²",
        source="Kornblith et al. 2019, table 1",
        symmetric=False,
        of_itself=1.0,
    )

    def view(self, x: Prepared) -> _Predictor:
        """Centred features with their norm, and an orthonormal basis."""
        check_not_saturated(x, x.rank, "linear_regression")
        return _Predictor(Factor(x.scores, x.norm), x.basis)

    def pairs(
        self, left: Sequence[_Predictor], right: Sequence[_Predictor], pairs: Pairs
    ) -> Tensor:
        """Shares of the left's variance."""
        explained = from_products(
            [view.target.factor for view in left],
            [view.basis for view in right],
            pairs,
            lambda batch: energy(batch.products),
        )
        return explained / torch.stack([left[i].target.size for i, _ in pairs]).square()

    def caution(self, left: Sequence[_Predictor], right: Sequence[_Predictor], pairs: Pairs) -> str:
        """Of few samples for the features that predict, each of which explains 1/(n - 1)."""
        n = left[0].basis.shape[0]
        q = max(right[j].basis.shape[1] for _, j in pairs)
        if 2 * q <= MANY * n:
            return ""
        return (
            f"q = {q} independent features of n = {n} samples explain {q / (n - 1):.2f} of the "
            "variance of any others, see chance_level; use more samples, calibrated(...) or "
            "linear_predictivity, which is cross-validated"
        )


def linear_regression(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """R² of the linear regression of x on y: the share of x's variance that y explains.

    ‖QᵧᵀX‖² / ‖X‖² with Qᵧ an orthonormal basis of the centred features of y. A similarity in
    [0, 1], not symmetric: invariant to linear maps of y, but only to rotation and scale of x. The
    fit is that of the samples given, not cross-validated.

    Args:
        x: Representation of n samples with p features, which is predicted, or a prepared one.
        y: Representation of the same n samples with q features, which predicts.

    Returns:
        Scalar, float64 if either representation is, otherwise float32.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant or of rank n - 1, which explains anything. A
            ValueError.
        ValueError: Shapes do not fit, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import linear_regression
        >>> y = torch.randn(100, 5)
        >>> bool(torch.isclose(linear_regression(y[:, :2], y), torch.tensor(1.0)))
        True

    References:
        Kornblith et al., "Similarity of neural network representations revisited", 2019,
        table 1.
    """
    return LinearRegression()(x, y)


@register
@dataclass(frozen=True)
class EigenspaceOverlap(SampleMeasure[Factor]):
    """See `eigenspace_overlap`."""

    info: ClassVar[Info] = Info(
        name="eigenspace_overlap",
        kind="similarity",
        formula="‖UₓᵀUᵧ‖² / max(p, q), U the left singular vectors of the features, not centred",
        low=0.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "linear"),
        differentiable="with full column rank",
        cost="n p²; n p²",
        source="May et al. 2019",
    )

    def view(self, x: Prepared) -> Factor:
        """Orthonormal basis of the features, means included, and their number."""
        if x.raw_basis.shape[1] >= x.n_samples:
            check_not_saturated(x, x.raw_basis.shape[1], "eigenspace_overlap")
        return Factor(x.raw_basis, x.raw_basis.new_tensor(x.n_features, dtype=torch.float64))

    def pairs(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> Tensor:
        """Overlaps."""
        overlap = from_products(*factors(left, right), pairs, lambda b: energy(b.products))
        return overlap / torch.maximum(*sizes(left, right, pairs))

    def caution(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> str:
        """Of few samples for the narrower representation, of which 1/n lies in any direction."""
        n = left[0].factor.shape[0]
        widths = [(left[i].factor.shape[1], right[j].factor.shape[1]) for i, j in pairs]
        p, q = max(widths, key=min)
        if 2 * min(p, q) <= MANY * n:
            return ""
        return (
            f"p = {p} and q = {q} independent features of n = {n} samples overlap by "
            f"{min(p, q) / n:.2f} whatever they are, see chance_level; use more samples or "
            "calibrated(...)"
        )


def eigenspace_overlap(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Eigenspace overlap score: how much of the column spaces coincides.

    ‖UₓᵀUᵧ‖² / max(p, q) with the left singular vectors of the features, which are not centred. A
    similarity in [0, 1]; 1 only for features of full rank, since the divisor counts features.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.

    Returns:
        Scalar, float64 if either representation is, otherwise float32.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is zero, or has as many independent features as samples.
            A ValueError.
        ValueError: Shapes do not fit, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import eigenspace_overlap
        >>> value = eigenspace_overlap(torch.randn(100, 5), torch.randn(100, 8))

    References:
        May et al., "On the downstream performance of compressed word embeddings", 2019.
    """
    return EigenspaceOverlap()(x, y)


@register
@dataclass(frozen=True)
class GULPDistance(SampleMeasure[Factor]):
    """See `gulp_distance`."""

    info: ClassVar[Info] = Info(
        name="gulp_distance",
        title="GULP distance",
        kind="distance",
        formula="√(tr(S_λ⁻¹S)² + tr(T_λ⁻¹T)² - 2 tr(S_λ⁻¹C T_λ⁻¹Cᵀ)), S, T, C covariances scaled "
        "to tr S = tr T = 1, S_λ = S + λI, λ = ridge",
        low=0.0,
        high=math.inf,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="where the distance is not 0; with full column rank for λ = 0",
        cost="n p²; n p²",
        source="Boix-Adserà et al. 2022",
        of_itself=0.0,
        metric=True,
    )
    ridge: float = 1e-2

    def __post_init__(self) -> None:
        check_range("ridge", self.ridge, 0.0, math.inf, open_low=False)

    def view(self, x: Prepared) -> Factor:
        """F = √s X (XᵀX + λ‖X‖²)^-½ up to rotation, and ‖FᵀF‖², s as in `_scale`."""
        if self.ridge == 0.0:
            check_not_saturated(x, x.rank, "gulp_distance without ridge")
            return Factor(x.basis, x.basis.new_tensor(x.rank, dtype=torch.float64))
        wide = x.scores.double()
        gram = centered_gram(wide.mT, centering="none") / self._scale
        ridge = self.ridge / self._scale * x.norm.square() * torch.eye(len(gram)).to(gram)
        lower, failed = torch.linalg.cholesky_ex(gram + ridge)
        if bool(failed) or self._counts_rounding(x, len(gram)):
            raise UndefinedError(
                f"{x.name}: expected ridge 0 or one above what rounding makes of features that "
                f"depend on one another, got {self.ridge:.3g}"
            )
        upper = lower.mT
        factor = torch.linalg.solve_triangular(upper, wide, upper=True, left=False)
        factor = factor.to(x.scores.dtype)  # whose norm it must be: distances are differences
        return Factor(factor, energy(centered_gram(factor.double().mT, centering="none")))

    def pairs(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> Tensor:
        """Roots of the sums."""

        def squared(batch: Batch) -> Tensor:
            ours, theirs = sizes(left, right, [pairs[k] for k in batch.numbers])
            return (ours + theirs - 2 * energy(batch.products)) / (ours + theirs)

        share = from_products(
            *factors(left, right), pairs, squared, close=lambda share: share < CLOSE
        )
        ours, theirs = sizes(left, right, pairs)
        return (share * (ours + theirs)).clamp_min(0.0).sqrt() / self._scale

    def caution(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> str:
        """Of few samples, without ridge only."""
        if self.ridge > 0.0:
            return ""
        return caution_of_few_samples(left, right, pairs, instead="a ridge")

    def _counts_rounding(self, x: Prepared, columns: int) -> bool:
        """Whether directions that the cut-off calls zero would weigh as much as any other."""
        if self.ridge * float(x.norm.detach()) ** 2 >= x.cutoff**2:
            return False
        return x.rank < min(columns, x.n_samples - 1)

    @property
    def _scale(self) -> float:
        """A power of two near λ where that is large: distances are divided by it at the end, since
        those under a large ridge, about 1/λ, have squares that no dtype holds."""
        return math.ldexp(1.0, math.frexp(max(1.0, self.ridge))[1] - 1)


# Below this share of its terms float32 products leave the difference less than four digits.
CLOSE = 1e-3


def gulp_distance(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    ridge: float = 1e-2,
) -> Tensor:
    """GULP distance: the largest mean difference of ridge predictions from two representations.

    The root of tr(S_λ⁻¹S)² + tr(T_λ⁻¹T)² - 2 tr(S_λ⁻¹C T_λ⁻¹Cᵀ) with the covariances S, T and the
    cross-covariance C of representations that are centred and scaled to total variance 1, as in the
    authors' experiments. A metric; without ridge its square is the sum of the ranks less twice the
    sum of squared canonical correlations, and it is invariant to linear maps.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        ridge: λ >= 0, as a share of the total variance.

    Returns:
        Scalar, float64 if either representation is, otherwise float32.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant, without ridge of rank n - 1, or has dependent
            features and a ridge too small to tell them from rounding. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf, ridge out of range.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import gulp_distance
        >>> value = gulp_distance(torch.randn(100, 5), torch.randn(100, 8), ridge=0.1)

    References:
        Boix-Adserà et al., "GULP: a prediction-based metric between representations", 2022.
    """
    return GULPDistance(ridge=ridge)(x, y)
