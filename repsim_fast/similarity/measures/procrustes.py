"""Orthogonal Procrustes: how near two representations come by rotation alone.

All of it rests on one coefficient, c = ‖XᵀY‖_* / (‖X‖ ‖Y‖) of centred features, with the nuclear
norm ‖·‖_* (sum of singular values): the cosine between X and Y after the best rotation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast.similarity.base import spectral
from repsim_fast.similarity.base.measure import (
    Info,
    Invariance,
    check_not_saturated,
    check_range,
    register,
)
from repsim_fast.similarity.base.pairs import Batch, Pairs
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.base.views import Factor, factors, from_products, sizes
from repsim_fast.similarity.measures.cca import caution_of_few_samples
from repsim_fast.similarity.streaming.samples import SampleMeasure

# Distances are differences of numbers of order 1. Where c is nearer to 1 than this, rounding of
# float32 products (1e-7) would leave less than four digits, and float64 products take their place.
CLOSE = 1e-3


def coefficient(
    left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs, *, precise: bool
) -> Tensor:
    """c of pairs of factors with their norms; ``precise`` where 1 - c matters."""

    def cosine(batch: Batch) -> Tensor:
        ours, theirs = sizes(left, right, [pairs[k] for k in batch.numbers])
        return spectral.nuclear_norm(batch) / (ours * theirs)

    close = (lambda c: c > 1 - CLOSE) if precise else None
    return from_products(*factors(left, right), pairs, cosine, close=close)


def arc_cosine(cosine: Tensor) -> Tensor:
    """Angle in [0, π/2]; cosines that rounding has put above 1 count as 1."""
    return torch.arccos(cosine.clamp(-1.0, 1.0))


@dataclass(frozen=True)
class _Procrustes(SampleMeasure[Factor]):
    """A function of c, seen through any matrix with the same Gram."""

    def view(self, x: Prepared) -> Factor:
        """Centred features (or as few columns with the same Gram) and their norm."""
        return _sized(x.scores)


def _sized(factor: Tensor) -> Factor:
    """With the norm of the factor itself: rounding it must not put c of equal ones below 1."""
    return Factor(factor, torch.linalg.vector_norm(factor, dtype=torch.float64))


_INVARIANT: tuple[Invariance, ...] = ("permutation", "rotation", "scale", "translation")
_COST = "n p (n² p for p > n); n p² + p³"


@register
@dataclass(frozen=True)
class ProcrustesSimilarity(_Procrustes):
    """See `procrustes_similarity`."""

    info: ClassVar[Info] = Info(
        name="procrustes_similarity",
        title="Procrustes similarity",
        kind="similarity",
        formula="c = ‖XᵀY‖_* / (‖X‖ ‖Y‖); the normalised Bures similarity",
        low=0.0,
        high=1.0,
        invariant_to=_INVARIANT,
        differentiable="where XᵀY has full rank",
        cost=_COST,
        source="Schönemann 1966; Tang et al. 2020 (NBS)",
        of_itself=1.0,
    )

    def pairs(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> Tensor:
        """c."""
        return coefficient(left, right, pairs, precise=False)


@register
@dataclass(frozen=True)
class ProcrustesDistance(_Procrustes):
    """See `procrustes_distance`."""

    info: ClassVar[Info] = Info(
        name="procrustes_distance",
        title="Procrustes distance",
        kind="distance",
        formula="2 - 2c = min ‖X/‖X‖ - QY/‖Y‖‖² over rotations Q, squared as in the source",
        low=0.0,
        high=2.0,
        invariant_to=_INVARIANT,
        differentiable="where XᵀY has full rank",
        cost=_COST,
        source="Ding et al. 2021; Cianfarani et al. 2022",
        of_itself=0.0,
    )

    def pairs(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> Tensor:
        """2 - 2c."""
        return 2 - 2 * coefficient(left, right, pairs, precise=True)


@register
@dataclass(frozen=True)
class AngularProcrustesDistance(_Procrustes):
    """See `angular_procrustes_distance`."""

    info: ClassVar[Info] = Info(
        name="angular_procrustes_distance",
        title="angular Procrustes distance",
        kind="distance",
        formula="arccos c",
        low=0.0,
        high=math.pi / 2,
        invariant_to=_INVARIANT,
        differentiable="where XᵀY has full rank and c < 1",
        cost=_COST,
        source="Williams et al. 2021",
        of_itself=0.0,
        metric=True,
    )

    def pairs(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> Tensor:
        """arccos c."""
        return arc_cosine(coefficient(left, right, pairs, precise=True))


@register
@dataclass(frozen=True)
class BuresDistance(_Procrustes):
    """See `bures_distance`."""

    info: ClassVar[Info] = Info(
        name="bures_distance",
        title="Bures distance",
        kind="distance",
        formula="√(‖X‖² + ‖Y‖² - 2‖XᵀY‖_*) = min ‖X - QY‖, the size-and-shape distance",
        low=0.0,
        high=math.inf,
        invariant_to=("permutation", "rotation", "translation"),
        differentiable="where XᵀY has full rank and the distance is not 0",
        cost=_COST,
        source="Bhatia et al. 2019; Williams et al. 2021",
        of_itself=0.0,
        metric=True,
    )

    def pairs(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> Tensor:
        """Root of (‖X‖ - ‖Y‖)² + 2(1 - c)‖X‖‖Y‖, which does not cancel."""
        ours, theirs = sizes(left, right, pairs)
        missing = 1 - coefficient(left, right, pairs, precise=True)
        squared = (ours - theirs).square() + 2 * missing * ours * theirs
        return squared.clamp_min(0.0).sqrt()


@register
@dataclass(frozen=True)
class ShapeDistance(SampleMeasure[Factor]):
    """See `shape_distance`."""

    info: ClassVar[Info] = Info(
        name="shape_distance",
        kind="distance",
        formula="arccos c of partly whitened X (a I + (1 - a)(XᵀX)^-½) and Y, a = alpha",
        low=0.0,
        high=math.pi / 2,
        invariant_to=("permutation", "rotation", "translation"),
        differentiable="with full column rank; distinct singular values for 0 < alpha < 1",
        cost="n p² + p³; n p² + p³",
        source="Williams et al. 2021",
        of_itself=0.0,
        metric=True,
    )
    alpha: float = 1.0

    def __post_init__(self) -> None:
        check_range("alpha", self.alpha, 0.0, 1.0, open_low=False)

    def view(self, x: Prepared) -> Factor:
        """Left singular vectors, each as long as its value after partial whitening."""
        if self.alpha == 1.0:
            return _sized(x.scores)
        if self.alpha == 0.0:
            check_not_saturated(x, x.rank, "shape_distance with alpha 0")
            factor = x.basis
        else:
            values = self.alpha * x.eigen.values[: x.rank] + (1 - self.alpha)
            factor = x.left_vectors(x.rank) * values.to(x.features.dtype)
        return _sized(factor)

    def pairs(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> Tensor:
        """arccos c."""
        return arc_cosine(coefficient(left, right, pairs, precise=True))

    def caution(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> str:
        """Of few samples, with alpha 0 only."""
        if self.alpha > 0.0:
            return ""
        return caution_of_few_samples(left, right, pairs, instead="an alpha above 0")


def procrustes_similarity(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Cosine of two representations after the best rotation: c = ‖XᵀY‖_* / (‖X‖ ‖Y‖).

    A similarity in [0, 1], 1 for representations equal up to rotation, isotropic scaling and
    translation. Representations of different width are compared as if the narrower had features
    of zeros. It is also the normalised Bures similarity (NBS) of the Grams, the cosine of
    `angular_procrustes_distance`, and 1 - d/2 of `procrustes_distance`.

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
        >>> from repsim_fast.similarity import procrustes_similarity
        >>> x = torch.randn(100, 5)
        >>> bool(torch.isclose(procrustes_similarity(x, 2 * x.flip(1)), torch.tensor(1.0)))
        True

    References:
        Schönemann, "A generalized solution of the orthogonal Procrustes problem", 1966.
        Tang et al., "Similarity of neural networks with gradients", 2020 (NBS).
    """
    return ProcrustesSimilarity()(x, y)


def procrustes_distance(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Squared distance after centring, scaling to norm 1 and the best rotation: 2 - 2c.

    A distance in [0, 2], in the form of Ding et al., which is a square; its root is the metric.
    Arguments, errors and c as for `procrustes_similarity`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import procrustes_distance
        >>> value = procrustes_distance(torch.randn(100, 5), torch.randn(100, 8))

    References:
        Ding et al., "Grounding representation similarity through statistical testing", 2021.
    """
    return ProcrustesDistance()(x, y)


def angular_procrustes_distance(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Angle between two representations after the best rotation: arccos c, in [0, π/2].

    A metric. Arguments, errors and c as for `procrustes_similarity`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import angular_procrustes_distance
        >>> value = angular_procrustes_distance(torch.randn(100, 5), torch.randn(100, 8))

    References:
        Williams et al., "Generalized shape metrics on neural representations", 2021.
    """
    return AngularProcrustesDistance()(x, y)


def bures_distance(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Distance after centring and the best rotation, sizes kept: √(‖X‖² + ‖Y‖² - 2‖XᵀY‖_*).

    A metric in [0, ∞), in the unit of the features times √n: the Bures distance of the two Grams,
    and the size-and-shape form of Procrustes. Arguments and errors as for `procrustes_similarity`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import bures_distance
        >>> x = torch.randn(100, 5)
        >>> bool(bures_distance(x, x + 3) < 1e-3)
        True

    References:
        Bhatia et al., "On the Bures-Wasserstein distance between positive definite matrices", 2019.
    """
    return BuresDistance()(x, y)


def shape_distance(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    alpha: float = 1.0,
) -> Tensor:
    """Angular shape metric between rotation (alpha 1) and any linear map (alpha 0).

    A metric in [0, π/2]: arccos c of the partly whitened X (αI + (1 - α)(XᵀX)^-½) and Y, the root
    inverted where XᵀX is not zero, so that X may have more features than samples. With alpha
    1 it is `angular_procrustes_distance`; with alpha 0 and equal ranks arccos of `cca`, and then
    invariant to linear maps. Between the two it depends on the scale of the features.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        alpha: Share of the features that is not whitened, in [0, 1].

    Returns:
        Scalar, float64 if either representation is, otherwise float32.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant, or for alpha 0 of rank n - 1. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf, alpha out of range.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import shape_distance
        >>> value = shape_distance(torch.randn(100, 5), torch.randn(100, 5), alpha=0.5)

    References:
        Williams et al., "Generalized shape metrics on neural representations", 2021.
    """
    return ShapeDistance(alpha=alpha)(x, y)
