"""Canonical correlations weighted by what they account for in one representation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from repsim_fast._core.checks import check_choice
from repsim_fast.similarity.base import spectral
from repsim_fast.similarity.base.measure import Info, register
from repsim_fast.similarity.base.pairs import Batch, Pairs
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.base.views import Factor, factors, from_products
from repsim_fast.similarity.measures.cca import INSTEAD, caution_of_few_samples, orthonormal
from repsim_fast.similarity.streaming.samples import SampleMeasure

Side = Literal["x", "y", "mean", "smaller"]

SIDES: tuple[Side, ...] = ("x", "y", "mean", "smaller")


@dataclass(frozen=True, eq=False)
class Weighted(Factor):
    """Orthonormal basis with the features' coordinates in it (k, p)."""

    coordinates: Tensor = field(default_factory=lambda: torch.empty(0, 0))


@register
@dataclass(frozen=True)
class PWCCA(SampleMeasure[Weighted]):
    """See `pwcca`."""

    info: ClassVar[Info] = Info(
        name="pwcca",
        title="PWCCA",
        kind="similarity",
        formula="Σ αᵢρᵢ / Σ αᵢ with αᵢ = Σⱼ |hᵢᵀxⱼ|, hᵢ = Qₓuᵢ the canonical variates of x (of y "
        "with side='y')",
        low=0.0,
        high=1.0,
        invariant_to=("permutation", "scale", "translation"),
        differentiable="with full column rank and distinct correlations",
        cost="n p²; n p² + p³",
        source="Morcos et al. 2018",
        symmetric=False,
        of_itself=1.0,
    )
    side: Side = "x"

    def __post_init__(self) -> None:
        check_choice("side", self.side, SIDES)

    def view(self, x: Prepared) -> Weighted:
        """Orthonormal basis and coordinates."""
        basis = orthonormal(x, x.basis, "pwcca")
        return Weighted(basis.factor, basis.size, x.coordinates)

    def pairs(self, left: Sequence[Weighted], right: Sequence[Weighted], pairs: Pairs) -> Tensor:
        """Weighted means of canonical correlations."""

        def weighted(batch: Batch) -> Tensor:
            chosen = [pairs[k] for k in batch.numbers]
            ours = [left[i].coordinates for i, _ in chosen]
            theirs = [right[j].coordinates for _, j in chosen]
            flipped = Batch(batch.numbers, batch.products.mT, batch.columns, batch.rows)
            if self.side == "x":
                return _means(batch, ours)
            if self.side == "y":
                return _means(flipped, theirs)
            of_x, of_y = _means(batch, ours), _means(flipped, theirs)
            if self.side == "mean":
                return (of_x + of_y) / 2
            narrower = [x.shape[1] <= y.shape[1] for x, y in zip(ours, theirs, strict=True)]
            return torch.where(torch.tensor(narrower, device=of_x.device), of_x, of_y)

        return from_products(*factors(left, right), pairs, weighted)

    def caution(self, left: Sequence[Weighted], right: Sequence[Weighted], pairs: Pairs) -> str:
        """Of few samples."""
        return caution_of_few_samples(
            left, right, pairs, instead=INSTEAD, held_out="cross_validated_pwcca"
        )


def _means(batch: Batch, coordinates: list[Tensor]) -> Tensor:
    """Means (B,) of canonical correlations, weighted by how much of the features of the left side
    lies along each of its canonical variates; in float64."""
    directions, rho = spectral.left_vectors(batch)
    values = []
    for u, correlations, features in zip(directions, rho.double(), coordinates, strict=True):
        along = u[: features.shape[0]].mT @ features
        weights = along.abs().sum(dim=1, dtype=torch.float64)
        values.append(weights @ correlations / weights.sum())
    return torch.stack(values)


def pwcca(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    side: Side = "x",
) -> Tensor:
    """Projection-weighted mean canonical correlation (PWCCA).

    A similarity in [0, 1]: Σ αᵢρᵢ / Σ αᵢ over all canonical correlations ρᵢ, with weights
    αᵢ = Σⱼ |hᵢᵀxⱼ|, where hᵢ is the i-th canonical variate of the weighting side (a unit vector
    over samples) and xⱼ its j-th feature, centred. Not symmetric: the side matters.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        side: Whose features weigh: ``"x"``, ``"y"``, ``"mean"`` of the two values, or
            ``"smaller"``, the one with fewer features (x when equal).

    Returns:
        Scalar, float64 if either representation is, otherwise float32. Where correlations
        coincide, canonical variates and so the weights are not unique.

    Raises:
        TypeError, UndefinedError, ValueError: As `cca`; also for an unknown side.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import pwcca
        >>> value = pwcca(torch.randn(100, 5), torch.randn(100, 8), side="mean")

    References:
        Morcos et al., "Insights on representational similarity in neural networks with canonical
        correlation", 2018, section 3.
    """
    return PWCCA(side=side)(x, y)
