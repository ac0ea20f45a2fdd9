"""Canonical correlations and regression, fitted to some samples and read off the others.

What features find by chance among the samples they are fitted to is not there among others, so that
unrelated representations have values about 0 however many features they have.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast.similarity.base import spectral
from repsim_fast.similarity.base.folds import Fold, Folds, centred_like, fold, splits
from repsim_fast.similarity.base.measure import (
    Info,
    check_count,
    check_not_saturated,
    check_range,
    register,
)
from repsim_fast.similarity.base.pairs import Batch, Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.views import from_products
from repsim_fast.similarity.measures.svcca import SVCCA
from repsim_fast.similarity.streaming.samples import SampleMeasure


@dataclass(frozen=True)
class _CrossValidated(SampleMeasure[Folds]):
    """A measure of samples held out, by a random split into folds."""

    min_samples: ClassVar[int] = 6
    folds: int = dataclasses.field(default=5, kw_only=True)
    seed: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        check_count("folds", self.folds, 2, 2**31)

    def view(self, x: Prepared) -> Folds:
        """Bases of the samples of all but one fold, and where the others lie in them."""
        check_count("folds", self.folds, 2, x.n_samples // 3, f", three samples each of {x.name}")
        # Coordinates of samples held out in a basis of others take more digits than float32 has.
        wide = x.double()
        split = splits(x.n_samples, self.folds, self.seed)
        found = tuple(fold(wide, samples, self.basis) for samples in split)
        return Folds(wide, found, self.view)

    @abstractmethod
    def basis(self, fitted: Prepared) -> Tensor:
        """Orthonormal basis (m, k) of the samples to fit."""


class _CrossValidatedCCA(_CrossValidated):
    """Mean correlation of canonical variates among samples held out."""

    weighted: ClassVar[bool] = False

    def pairs(self, left: Sequence[Folds], right: Sequence[Folds], pairs: Pairs) -> Tensor:
        """Means over folds, by their samples."""
        total = torch.zeros(len(pairs), dtype=torch.float64)
        for number in range(self.folds):
            ours: list[Fold] = [view.folds[number] for view in left]
            theirs = ours if left is right else [view.folds[number] for view in right]
            bases = [one.basis for one in ours]
            others = bases if left is right else [one.basis for one in theirs]

            def held_out(
                batch: Batch, ours: list[Fold] = ours, theirs: list[Fold] = theirs
            ) -> Tensor:
                u, _, vt = spectral.singular_vectors(batch)
                chosen = [pairs[k] for k in batch.numbers]
                return torch.stack(
                    [self._mean(ours[i], u[b], theirs[j], vt[b]) for b, (i, j) in enumerate(chosen)]
                )

            share = len(ours[0].samples.held_out) / left[0].prepared.n_samples
            values = from_products(bases, others, pairs, held_out)
            total = total.to(values.device) + share * values
        return total

    def caution(self, left: Sequence[Folds], right: Sequence[Folds], pairs: Pairs) -> str:
        """Of correlations that are 1 in the fit whatever the data, so that any variates will do."""
        m = len(left[0].folds[0].basis)
        widths = [[side.folds[0].basis.shape[1] for side in (left[i], right[j])] for i, j in pairs]
        p, q = max(widths, key=sum)
        forced = p + q - (m - 1)
        if forced <= 0:
            return ""
        return (
            f"{forced} canonical correlations of the n = {m} samples fitted are 1 whatever the "
            f"data, with p = {p} and q = {q} independent features: variates, and so the value, are "
            "not unique; use more samples, cross_validated_svcca with fewer components or "
            "ridge_predictivity"
        )

    def _mean(self, x: Fold, u: Tensor, y: Fold, vt: Tensor) -> Tensor:
        """Mean correlation of one pair and fold."""
        k, m = x.basis.shape[1], y.basis.shape[1]
        u, v = u[:k, : min(k, m)], vt[: min(k, m), :m].mT
        correlations = _correlations(x.scores @ u, y.scores @ v)
        if not self.weighted:
            return correlations.mean()
        weights = (u.mT @ x.coordinates).abs().sum(dim=1)
        return weights @ correlations / weights.sum()


def _correlations(a: Tensor, b: Tensor) -> Tensor:
    """Correlations (k,) of columns of (h, k); 0 where one is constant."""
    a, b = a - a.mean(dim=0), b - b.mean(dim=0)
    sizes = torch.linalg.vector_norm(a, dim=0) * torch.linalg.vector_norm(b, dim=0)
    found: Tensor = (a * b).sum(dim=0) / sizes.where(sizes > 0, 1.0)
    return found


@register
@dataclass(frozen=True)
class CrossValidatedCCA(_CrossValidatedCCA):
    """See `cross_validated_cca`."""

    info: ClassVar[Info] = Info(
        name="cross_validated_cca",
        title="cross-validated CCA",
        kind="similarity",
        formula="mean over folds of the mean correlation, among the samples of the fold, of "
        "canonical variates fitted to the others",
        low=-1.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation", "linear"),
        differentiable="no",
        cost="f n p²; f (n p² + p³) for f folds",
        source="Hotelling 1936; cross-validation as Williams et al. 2021",
        of_itself=1.0,
    )

    def basis(self, fitted: Prepared) -> Tensor:
        """Of all features."""
        check_not_saturated(fitted, fitted.rank, self.info.name)
        return fitted.basis


@register
@dataclass(frozen=True)
class CrossValidatedSVCCA(_CrossValidatedCCA):
    """See `cross_validated_svcca`."""

    info: ClassVar[Info] = Info(
        name="cross_validated_svcca",
        title="cross-validated SVCCA",
        kind="similarity",
        formula="as cross_validated_cca, of the principal components of the samples fitted that "
        "hold 99 % of the variance (or the share `variance`), or the first `components`",
        low=-1.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="no",
        cost="f (n p² + p³); f (n k² + k³) for f folds",
        source="Raghu et al. 2017; cross-validation as Williams et al. 2021",
        of_itself=1.0,
    )
    variance: float | None = None
    components: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        SVCCA(variance=self.variance, components=self.components)  # checks them

    def basis(self, fitted: Prepared) -> Tensor:
        """Of the first principal components."""
        kept = SVCCA(variance=self.variance, components=self.components).kept(fitted)
        check_not_saturated(fitted, kept, self.info.name)
        return fitted.left_vectors(kept)


@register
@dataclass(frozen=True)
class CrossValidatedPWCCA(_CrossValidatedCCA):
    """See `cross_validated_pwcca`."""

    info: ClassVar[Info] = Info(
        name="cross_validated_pwcca",
        title="cross-validated PWCCA",
        kind="similarity",
        formula="as cross_validated_cca, weighted by what each variate of x accounts for of the "
        "features of the samples fitted",
        low=-1.0,
        high=1.0,
        invariant_to=("permutation", "scale", "translation"),
        differentiable="no",
        cost="f n p²; f (n p² + p³) for f folds",
        source="Morcos et al. 2018; cross-validation as Williams et al. 2021",
        symmetric=False,
        of_itself=1.0,
    )
    weighted: ClassVar[bool] = True

    def basis(self, fitted: Prepared) -> Tensor:
        """Of all features."""
        check_not_saturated(fitted, fitted.rank, self.info.name)
        return fitted.basis


class _Predictivity(_CrossValidated):
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
    errors = []
    for kept in shrunk:
        fit = basis * kept
        leverage = (fit * basis).sum(dim=1) + 1 / len(basis)
        squared = sizes - 2 * (fit * mixed).sum(dim=1) + ((fit @ products) * fit).sum(dim=1)
        errors.append((squared / (1 - leverage).square()).sum())
    return torch.stack(errors)


def cross_validated_cca(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    folds: int = 5,
    seed: int = 0,
) -> Tensor:
    """Mean canonical correlation among samples that the variates were not fitted to.

    A similarity in [-1, 1], about 0 for unrelated representations whatever n, p and q, where that
    of `cca` grows with (p + q)/n. Samples are dealt to folds at random; canonical variates are
    fitted to all folds but one, and correlated among the samples of that one. All correlations
    count alike, and folds by their samples.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
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
        >>> from repsim_fast.similarity import cca, cross_validated_cca
        >>> x, y = torch.randn(200, 10), torch.randn(200, 10)
        >>> bool(cross_validated_cca(x, y) < cca(x, y))
        True

    References:
        Hotelling, "Relations between two sets of variates", 1936.
        Williams et al., "Generalized shape metrics on neural representations", 2021 (distances of
        samples held out).
    """
    return CrossValidatedCCA(folds=folds, seed=seed)(x, y)


def cross_validated_svcca(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    variance: float | None = None,
    components: int | None = None,
    folds: int = 5,
    seed: int = 0,
) -> Tensor:
    """Cross-validated canonical correlation of the leading principal components.

    A similarity in [-1, 1], as `cross_validated_cca` of the components that `svcca` keeps of the
    samples fitted. Arguments are those of the two, and so are the errors.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cross_validated_svcca
        >>> value = cross_validated_svcca(torch.randn(50, 200), torch.randn(50, 9), components=5)

    References:
        Raghu et al., "SVCCA: singular vector canonical correlation analysis", 2017.
    """
    measure = CrossValidatedSVCCA(variance=variance, components=components, folds=folds, seed=seed)
    return measure(x, y)


def cross_validated_pwcca(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    folds: int = 5,
    seed: int = 0,
) -> Tensor:
    """Cross-validated canonical correlation, weighted by what variates account for in x.

    A similarity in [-1, 1], as `cross_validated_cca` with the weights of `pwcca` among the samples
    fitted, where x weighs. Not symmetric. Arguments and errors as for `cross_validated_cca`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cross_validated_pwcca
        >>> value = cross_validated_pwcca(torch.randn(100, 5), torch.randn(100, 8))

    References:
        Morcos et al., "Insights on representational similarity in neural networks with canonical
        correlation", 2018.
    """
    return CrossValidatedPWCCA(folds=folds, seed=seed)(x, y)


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
    the prediction is worse than the mean, as for unrelated representations (about -q/n for q
    features); `ridge_predictivity` stays near 0 there.

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
