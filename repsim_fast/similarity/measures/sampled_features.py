"""CKA of populations of which the features are a random sample."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast.similarity.base.estimator import known_chance
from repsim_fast.similarity.base.factor import centred
from repsim_fast.similarity.base.hsic import Linear, alignments, linear, resolved
from repsim_fast.similarity.base.measure import Info, check_count, register
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.streaming.samples import SampleMeasure

# A caution is given where HSIC is more than this many times what is left of it without that of
# each feature with itself, and the latter is known no better than to this share of itself. With a
# smaller correction the errors of the three HSICs of a value cancel: of 160 features with a
# spectrum that falls as 1/k^0.7 denominators are off by 0.13 and values by 0.01.
CORRECTED, UNKNOWN = 1.4, 0.1

# Features whose own Grams are summed up at once, in float64.
BLOCK = 2048


@dataclass(frozen=True, eq=False)
class Sampled:
    """A centred Gram, and what is known of its population.

    Attributes:
        gram: The Gram.
        factor: Root of its HSIC with itself over that of the population.
        error: Standard error of the population's HSIC over draws of features, relative to it; 0
            where the correction is small.
        n_features: How many were drawn.
    """

    gram: Linear
    factor: Tensor
    error: float
    n_features: int

    def take(self, rows: Tensor) -> Sampled:
        """The view after a permutation of samples."""
        return replace(self, gram=self.gram.take(rows))


@register
@dataclass(frozen=True)
class CKASampledFeatures(SampleMeasure[Sampled]):
    """See `cka_sampled_features`."""

    info: ClassVar[Info] = Info(
        name="cka_sampled_features",
        title="CKA of sampled features",
        kind="similarity",
        formula="HSIC₁(K, L) / √(h(X) h(Y)), h = (HSIC₁(K, K) - Σᵤ HSIC₁(Kᵤ, Kᵤ)) p / (p - 1), "
        "Kᵤ = xᵤxᵤᵀ of one feature: cka unbiased in samples and features",
        low=0.0,
        high=1.0,
        invariant_to=("permutation", "scale", "translation"),
        differentiable="yes",
        cost="n p² (n² p for p ≥ n/2); n p² (n²)",
        source="Chun et al. 2025",
    )
    min_samples: ClassVar[int] = 4
    population: int | None = None

    def __post_init__(self) -> None:
        if self.population is not None:
            check_count("population", self.population, 1, 2**62)

    @property
    def known_chance(self) -> float | None:
        """That of U-centred Grams."""
        return known_chance("unbiased")

    def view(self, x: Prepared) -> Sampled:
        """The Gram, and what features of the same population would have in common less."""
        p = x.n_features
        if self.population is not None and self.population < p:
            raise ValueError(
                f"population: expected at least the {p} features of {x.name}, got {self.population}"
            )
        gram, whole, own = _sizes(x)
        # Of features of which one is much larger float32 keeps nothing of what others share.
        if x.features.dtype != torch.float64 and not resolved(whole - own, whole):
            x = x.double()
            gram, whole, own = _sizes(x)
        # Means of HSIC₁ over pairs of features of the population: of two, and of one with itself.
        apart = (whole - own) / (p * (p - 1)) if p > 1 else whole.new_tensor(torch.nan)
        share = 0.0 if self.population is None else 1 / self.population
        of_population = (1 - share) * apart + share * own / p
        if not float(of_population.detach()) > 0.0:
            raise UndefinedError(
                f"{x.name}: HSIC of the population with itself is not positive, as estimated from "
                f"{p} features of {x.n_samples} samples; use more"
            )
        square = whole / p**2 / of_population
        error = _error(x, apart) if float(square.detach()) > CORRECTED else 0.0
        return Sampled(gram, square.sqrt(), error, p)

    def caution(self, left: Sequence[Sampled], right: Sequence[Sampled], pairs: Pairs) -> str:
        """Of features too few, or too uneven, to tell of their population."""
        errors = [math.hypot(left[i].error, right[j].error) / 2 for i, j in pairs]
        worst = max(errors, default=0.0)
        if worst <= UNKNOWN:
            return ""
        i, j = pairs[errors.index(worst)]
        share = f"{worst:.0%} of itself" if math.isfinite(worst) else "any amount"
        return (
            f"p = {left[i].n_features} and q = {right[j].n_features} features tell little of their "
            f"populations: with others drawn the value may differ by {share}, which "
            "no standard error over samples contains; use more features"
        )

    def pairs(self, left: Sequence[Sampled], right: Sequence[Sampled], pairs: Pairs) -> Tensor:
        """CKA of the populations."""
        ours = [view.gram for view in left]
        theirs = ours if left is right else [view.gram for view in right]
        factors = [left[i].factor * right[j].factor for i, j in pairs]
        return alignments(ours, theirs, pairs) * torch.stack(factors)


def _sizes(x: Prepared) -> tuple[Linear, Tensor, Tensor]:
    """The Gram, its <K, K>, and the sum of those of single features, all scaled to norm 1."""
    gram = linear(x, "unbiased")
    whole = gram.size.square()
    if gram.gram is not None:  # whose size is that of the features as they are
        whole = whole / x.norm**4
    return gram, whole, _of_features(x)


def _of_features(x: Prepared) -> Tensor:
    """Sum over features of <Kᵤ, Kᵤ>, U-centred, Kᵤ = xᵤxᵤᵀ, all features scaled to norm 1."""
    n, total = x.n_samples, x.norm.new_zeros(())
    for block in torch.split(x.features, BLOCK, dim=1):
        squares = (centred(block.double()) / x.norm).square()
        sums = squares.sum(dim=0).square().sum()
        total = total + sums * (1 + 1 / ((n - 1) * (n - 2))) - squares.square().sum() * n / (n - 2)
    return total


@torch.no_grad()
def _error(x: Prepared, mean: Tensor) -> float:
    """Jackknife standard error, relative to it, of the mean of <Kᵤ, Kᵥ> over pairs of features."""
    n, p = x.n_samples, x.n_features
    if p < 3:
        return math.inf
    features = x.centered / x.norm.to(x.features.dtype)
    products = (features @ features.mT) @ features if n < p else features @ (features.mT @ features)
    squares = features.double().square()
    all_squares, sums = squares.sum(dim=1), squares.sum(dim=0)
    with_all = _without_diagonal(
        (products * features).sum(dim=0, dtype=torch.float64), all_squares @ squares,
        sums * sums.sum(), n,
    )  # fmt: skip
    own = _without_diagonal(sums.square(), squares.square().sum(dim=0), sums.square(), n)
    with_others = with_all - own
    left_out = (with_others.sum() - 2 * with_others) / ((p - 1) * (p - 2))
    spread = (left_out - left_out.mean()).square().sum() * (p - 1) / p
    return float(spread.sqrt() / mean.detach())


def _without_diagonal(energy: Tensor, products: Tensor, totals: Tensor, n: int) -> Tensor:
    """As `base.hsic.without_diagonal`, of features one by one."""
    return energy - products * (n / (n - 2)) + totals / ((n - 1) * (n - 2))


def cka_sampled_features(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    population: int | None = None,
) -> Tensor:
    """Linear CKA of two populations of features, from a random sample of each.

    A similarity. Of few features of a population, such as recorded neurons, `cka` comes out too
    low: 100 units of each of two populations with CKA 0.99 have 0.80, and 10 have 0.29, where the
    populations have 24 dimensions. The reason is the HSIC of a sample with itself, to which each
    feature contributes its own with itself; without those, numerator and denominators are unbiased
    in samples and in features, and may come out above 1. Features of x and y must be drawn
    independently: for the same ones, or all there are, use `cka`. A warning says where features are
    so few, or so uneven, that others drawn would give quite another value.

    Args:
        x: Representation of n samples with p of a population's features, or a prepared one.
        y: Representation of the same n samples with q of another's, or a prepared one.
        population: Number of features of each population, which then count with themselves.
            Default: so many that this makes no difference.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; differentiable.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant, or has so few features or samples that the
            HSIC of its population with itself is not estimated to be positive. A ValueError.
        ValueError: Shapes do not fit, fewer than 4 samples, NaN or Inf, more features than the
            population has.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cka, cka_sampled_features
        >>> z = torch.randn(200, 5)
        >>> x, y = z @ torch.randn(5, 20), z @ torch.randn(5, 20)
        >>> bool(cka_sampled_features(x, y) > cka(x, y))
        True

    References:
        Chun et al., "Estimating neural representation alignment from sparsely sampled inputs and
        features", 2025.
        Song et al., "Feature selection via dependence maximization", 2012, eq. 5.
    """
    return CKASampledFeatures(population=population)(x, y)
