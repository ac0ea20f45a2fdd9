"""Canonical correlations of two representations and their summaries."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from repsim_fast._core.checks import check_choice
from repsim_fast._core.precision import full_precision
from repsim_fast.ops import cross_gram
from repsim_fast.similarity.base import spectral
from repsim_fast.similarity.base.measure import (
    Info,
    check_not_saturated,
    comparable,
    register,
)
from repsim_fast.similarity.base.pairs import Batch, Pairs
from repsim_fast.similarity.base.prepared import Prepared, prepare
from repsim_fast.similarity.base.views import Factor, energy, factors, from_products
from repsim_fast.similarity.streaming.samples import SampleMeasure

Summary = Literal["mean", "mean_squared"]

SUMMARIES: tuple[Summary, ...] = ("mean", "mean_squared")

# What to use where samples are few for measures of canonical correlations.
INSTEAD = "svcca with fewer components"


def orthonormal(x: Prepared, basis: Tensor, measure: str) -> Factor:
    """View of an orthonormal basis (n, k), after checking that it is not everything there is."""
    check_not_saturated(x, basis.shape[1], measure)
    return Factor(basis, basis.new_tensor(basis.shape[1], dtype=torch.float64))


def summarised(
    left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs, summary: Summary
) -> Tensor:
    """Mean (squared) canonical correlation of pairs of orthonormal bases."""

    def mean(batch: Batch) -> Tensor:
        chosen = [pairs[k] for k in batch.numbers]
        widths = [min(left[i].factor.shape[1], right[j].factor.shape[1]) for i, j in chosen]
        total = spectral.nuclear_norm(batch) if summary == "mean" else energy(batch.products)
        return total / torch.tensor(widths, dtype=torch.float64).to(total.device)

    return from_products(*factors(left, right), pairs, mean)


# Features of both sides over samples, above which unrelated representations are far from 0. Of
# independent Gaussians with p = q the mean canonical correlation is 0.27 there.
MANY = 0.2


def caution_of_few_samples(
    left: Sequence[Factor],
    right: Sequence[Factor],
    pairs: Pairs,
    *,
    instead: str,
    held_out: str = "",
) -> str:
    """Of the pair with most features for its samples: two subspaces of dimensions p and q of one of
    n - 1 share at least p + q - (n - 1), and always come near each other by chance. Names what to
    use instead, and the form whose values are of samples held out."""
    n = left[0].factor.shape[0]
    widths = [(left[i].factor.shape[1], right[j].factor.shape[1]) for i, j in pairs]
    p, q = max(widths, key=sum)
    forced = p + q - (n - 1)
    if forced > 0:
        return (
            f"{forced} canonical correlations are 1 whatever the data: p = {p} and q = {q} "
            f"independent features do not fit into n = {n} samples; use more samples or {instead}"
        )
    if p + q > MANY * n:
        others = [held_out, instead] if held_out else [instead]
        return (
            f"p = {p} and q = {q} independent features of n = {n} samples: with (p + q)/n = "
            f"{(p + q) / n:.2f} above {MANY} unrelated representations look alike, see "
            f"chance_level; use more samples, calibrated(...) or {' or '.join(others)}"
        )
    return ""


@register
@dataclass(frozen=True)
class CCA(SampleMeasure[Factor]):
    """See `cca`."""

    info: ClassVar[Info] = Info(
        name="cca",
        title="CCA",
        kind="similarity",
        formula="mean (or mean square) of ρ₁ … ρₖ, the singular values of QₓᵀQᵧ; Q orthonormal "
        "bases of the columns, k the smaller rank",
        low=0.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation", "linear"),
        differentiable="with full column rank",
        cost="n p²; n p² + p³ (no p³ for mean_squared)",
        source="Hotelling 1936; Raghu et al. 2017; Kornblith et al. 2019, table 1",
        of_itself=1.0,
    )
    summary: Summary = "mean"

    def __post_init__(self) -> None:
        check_choice("summary", self.summary, SUMMARIES)

    def view(self, x: Prepared) -> Factor:
        """Orthonormal basis."""
        return orthonormal(x, x.basis, "cca")

    def pairs(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> Tensor:
        """Summaries of canonical correlations."""
        return summarised(left, right, pairs, self.summary)

    def caution(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> str:
        """Of few samples."""
        return caution_of_few_samples(
            left, right, pairs, instead=INSTEAD, held_out="cross_validated_cca"
        )


def cca(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    summary: Summary = "mean",
) -> Tensor:
    """Mean canonical correlation, or mean squared one.

    A similarity in [0, 1], equal for representations that are invertible linear maps of one
    another. The k canonical correlations, k the smaller rank, are the singular values of QₓᵀQᵧ with
    orthonormal bases Qₓ and Qᵧ of the centred features. Averages are over all k, none cut off.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        summary: ``"mean"`` of ρ, or ``"mean_squared"``, the mean of ρ² (Yanai's generalised
            coefficient of determination), which needs no singular values.

    Returns:
        Scalar, float64 if either representation is, otherwise float32. Differentiable for features
        of full column rank.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant, or has as many independent features as
            there are samples (rank n - 1): then all correlations are 1 whatever the data. A
            ValueError.
        ValueError: Shapes do not fit, NaN or Inf.

    Warns:
        UserWarning: The ranks add up to more than n / 5, so that unrelated representations are far
            from 0, or to more than n - 1, so that some correlations are 1 whatever the data.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cca
        >>> x = torch.randn(100, 5)
        >>> bool(torch.isclose(cca(x, x @ torch.randn(5, 5) + 1), torch.tensor(1.0)))
        True

    References:
        Raghu et al., "SVCCA: singular vector canonical correlation analysis", 2017.
        Kornblith et al., "Similarity of neural network representations revisited", 2019,
        table 1.
    """
    return CCA(summary=summary)(x, y)


@full_precision()
def canonical_correlations(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """All canonical correlations, falling.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.

    Returns:
        (k,) with k the smaller rank, in [0, 1] up to rounding; dtype, gradients, errors and
        warnings as for `cca`.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import canonical_correlations
        >>> canonical_correlations(torch.randn(100, 5), torch.randn(100, 7)).shape
        torch.Size([5])
    """
    measure = CCA()
    both = comparable([prepare(x, name="x"), prepare(y, name="y")], measure.min_samples)
    ours, theirs = (measure.view(one) for one in both)
    if text := measure.caution([ours], [theirs], [(0, 0)]):
        warnings.warn(f"canonical_correlations: {text}", stacklevel=2)
    products = cross_gram(ours.factor, theirs.factor)[None]
    values = spectral.singular_values(Batch([0], products))[0]
    return values.to(torch.promote_types(both[0].dtype, both[1].dtype))
