"""Regression, fitted to some samples, that predicts the others."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast.similarity.base.folds import Fold, Folds, centred_like
from repsim_fast.similarity.base.measure import (
    Info,
    check_not_saturated,
    check_range,
    register,
)
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.measures.held_out import CrossValidated


class _Predictivity(CrossValidated):
    """Share of the variance of samples held out of x that a linear function of y explains."""

    def pairs(self, left: Sequence[Folds], right: Sequence[Folds], pairs: Pairs) -> Tensor:
        """1 - (sum of squared errors) / (sum of squares about the mean fitted)."""
        errors, totals = [], []
        for number in range(self.folds):
            targets: dict[int, tuple[Tensor, Tensor]] = {}
            for i in sorted({i for i, _ in pairs}):
                samples = left[i].folds[number].samples
                fitted = left[i].prepared.take(samples.fitted).centered
                targets[i] = fitted, centred_like(left[i].prepared, samples)
            found = [
                (self._error(right[j].folds[number], *targets[i]), targets[i][1].square().sum())
                for i, j in pairs
            ]
            errors.append(torch.stack([error for error, _ in found]))
            totals.append(torch.stack([total for _, total in found]))
        return 1 - torch.stack(errors).sum(dim=0) / torch.stack(totals).sum(dim=0)

    def _error(self, y: Fold, fitted: Tensor, held_out: Tensor) -> Tensor:
        """Sum of squared errors of the samples held out."""
        along = y.basis.mT @ fitted
        predicted = y.scores @ (self.kept(y, fitted, along)[:, None] * along)
        return (held_out - predicted).square().sum()

    @abstractmethod
    def kept(self, y: Fold, fitted: Tensor, along: Tensor) -> Tensor:
        """What is kept (k,) of the regression along each direction of the basis."""


@register
@dataclass(frozen=True)
class LinearPredictivity(_Predictivity):
    """See `linear_predictivity`."""

    info: ClassVar[Info] = Info(
        name="linear_predictivity",
        title="linear predictivity",
        kind="similarity",
        formula="1 - Σ‖xᵢ - x̂ᵢ‖² / Σ‖xᵢ - x̄‖², x̂ᵢ from yᵢ by least squares, and the mean x̄, "
        "fitted to the samples of other folds",
        low=-math.inf,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="no",
        cost="f n p²; f n p² for f folds",
        source="Yamins et al. 2014; Kornblith et al. 2019",
        symmetric=False,
        of_itself=1.0,
    )

    def basis(self, fitted: Prepared) -> Tensor:
        """Of all features."""
        check_not_saturated(fitted, fitted.rank, self.info.name)
        return fitted.basis

    def kept(self, y: Fold, fitted: Tensor, along: Tensor) -> Tensor:
        """All."""
        return along.new_ones(len(along))


# Ridges to choose from, as shares of the variance: from hardly any to that of the mean prediction.
RIDGES = tuple(10 ** (k / 2 - 6) for k in range(15))


@register
@dataclass(frozen=True)
class RidgePredictivity(_Predictivity):
    """See `ridge_predictivity`."""

    info: ClassVar[Info] = Info(
        name="ridge_predictivity",
        title="ridge predictivity",
        kind="similarity",
        formula="as linear_predictivity, with the penalty λ‖Y‖²‖B‖² on coefficients B, λ = `ridge` "
        "or that of the smallest leave-one-out error among the samples fitted",
        low=-math.inf,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="no",
        cost="f (n p² + p³) (f n² p for p > n); f (n p² + 15 n p²) for f folds",
        source="Hoerl and Kennard 1970; Allen 1974 (PRESS)",
        symmetric=False,
    )
    ridge: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ridge is not None:
            check_range("ridge", self.ridge, 0.0, math.inf, open_low=True)

    def basis(self, fitted: Prepared) -> Tensor:
        """Principal components above the rank cut-off."""
        rank = int((fitted.eigen.values > fitted.cutoff).sum())
        if rank == 0:
            raise UndefinedError(f"{fitted.name}: expected features that vary in every fold")
        return fitted.left_vectors(min(rank, fitted.n_samples - 1))

    def kept(self, y: Fold, fitted: Tensor, along: Tensor) -> Tensor:
        """s²/(s² + λ‖Y‖²) of the singular values s."""
        squares = y.coordinates.square().sum(dim=1)
        if self.ridge is not None:
            return squares / (squares + self.ridge * squares.sum())
        shrunk = squares / (squares + squares.new_tensor(RIDGES)[:, None] * squares.sum())
        errors = _left_out(y.basis, shrunk, fitted, along)
        return shrunk[int(errors.argmin())]


def _left_out(
    basis: Tensor,  # (m, k)
    shrunk: Tensor,  # (ridges, k)
    fitted: Tensor,  # (m, p)
    along: Tensor,  # (k, p)
) -> Tensor:
    """Sums (ridges,) of squared errors of samples, each predicted by a fit without it (PRESS): that
    is its error in the fit of all over 1 - h, h its leverage."""
    sizes, mixed = fitted.square().sum(dim=1), fitted @ along.mT
    products = along @ along.mT
    weights = shrunk.mT.double()  # not in TF32, where it is allowed: leverages come near 1
    leverage = basis.square().double() @ weights + 1 / len(basis)  # (m, ridges)
    # One ridge at a time what has the size of the basis.
    fits = (basis * kept for kept in shrunk)
    lengths = torch.stack([((fit @ products) * fit).sum(dim=1) for fit in fits], 1)
    squared = sizes[:, None] - 2 * (basis * mixed).double() @ weights + lengths
    return (squared / (1 - leverage).square()).sum(dim=0)


def linear_predictivity(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    folds: int = 5,
    seed: int = 0,
) -> Tensor:
    """Share of the variance of samples held out of x that a linear function of y predicts.

    A similarity of at most 1: 1 - Σ‖xᵢ - x̂ᵢ‖² / Σ‖xᵢ - x̄‖² over all samples, each predicted by
    least squares, and its mean taken, from samples of other folds. Not symmetric. Below 0 where
    the prediction is worse than the mean, as for unrelated representations (about -q/(m - q - 1)
    for q features and m samples fitted); `ridge_predictivity` stays near 0 there.

    Args:
        x: Representation of n samples with p features, which is predicted, or a prepared one.
        y: Representation of the same n samples with q features, which predicts.
        folds: Number of folds, 2 to n/3.
        seed: Seed of the folds; global random state is not touched.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; not differentiable.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant among the samples fitted, or has as many
            independent features. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf, an option out of range.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import linear_predictivity
        >>> y = torch.randn(100, 5)
        >>> bool(torch.isclose(linear_predictivity(y[:, :2], y), torch.tensor(1.0)))
        True

    References:
        Yamins et al., "Performance-optimized hierarchical models predict neural responses in higher
        visual cortex", 2014.
    """
    return LinearPredictivity(folds=folds, seed=seed)(x, y)


def ridge_predictivity(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    ridge: float | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Tensor:
    """Share of the variance of samples held out of x that ridge regression on y predicts.

    As `linear_predictivity`, with coefficients B that minimise ‖X - YB‖² + λ‖Y‖²‖B‖² among the
    samples fitted, features centred there; for any number of features.

    Args:
        x: Representation of n samples with p features, which is predicted, or a prepared one.
        y: Representation of the same n samples with q features, which predicts.
        ridge: λ > 0, as a share of the total variance of y. Default: in each fold that of
            10⁻⁶ ... 10 (in steps of √10) with the smallest leave-one-out error among the samples
            fitted, for all features of x together.
        folds: Number of folds, 2 to n/3.
        seed: Seed of the folds; global random state is not touched.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; not differentiable.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant among the samples fitted. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf, an option out of range.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import ridge_predictivity
        >>> y = torch.randn(50, 200)
        >>> value = ridge_predictivity(y[:, :20] + torch.randn(50, 20), y)

    References:
        Hoerl and Kennard, "Ridge regression: biased estimation for nonorthogonal problems", 1970.
        Allen, "The relationship between variable selection and data augmentation and a method for
        prediction", 1974 (leave-one-out errors of one fit).
    """
    return RidgePredictivity(ridge=ridge, folds=folds, seed=seed)(x, y)
