"""Canonical correlations of the leading principal components."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from repsim_fast._core.checks import check_choice
from repsim_fast.similarity.base.measure import Info, check_count, check_range, register
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.base.views import Factor
from repsim_fast.similarity.measures.cca import (
    SUMMARIES,
    Summary,
    caution_of_few_samples,
    orthonormal,
    summarised,
)
from repsim_fast.similarity.streaming.samples import SampleMeasure

DEFAULT_VARIANCE = 0.99


@register
@dataclass(frozen=True)
class SVCCA(SampleMeasure[Factor]):
    """See `svcca`."""

    info: ClassVar[Info] = Info(
        name="svcca",
        title="SVCCA",
        kind="similarity",
        formula="cca of Uₓ and Uᵧ, the left singular vectors of X and Y that hold 99 % of the "
        "variance Σs² (or the share `variance`), or the first `components`",
        low=0.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="with full column rank and distinct singular values",
        cost="n p² + p³; n k² + k³",
        source="Raghu et al. 2017; fixed k = 20: Cianfarani et al. 2022",
        of_itself=1.0,
    )
    variance: float | None = None
    components: int | None = None
    summary: Summary = "mean"

    def __post_init__(self) -> None:
        check_choice("summary", self.summary, SUMMARIES)
        if self.variance is not None and self.components is not None:
            raise ValueError("components: expected either variance or components, got both")
        if self.variance is not None:
            check_range("variance", self.variance, 0.0, 1.0, open_low=True)
        if self.components is not None:
            check_count("components", self.components, 1, 2**31)

    def view(self, x: Prepared) -> Factor:
        """Leading left singular vectors."""
        return orthonormal(x, x.left_vectors(self.kept(x)), "svcca")

    def kept(self, x: Prepared) -> int:
        """How many components of a representation are compared."""
        values = x.eigen.values.detach()
        rank = max(1, int((values > x.cutoff).sum()))
        if self.components is not None:
            return min(self.components, rank)
        variance = DEFAULT_VARIANCE if self.variance is None else self.variance
        explained = values.square().cumsum(0)
        enough = explained >= variance * explained[-1]
        return min(rank, int((~enough).sum()) + 1)

    def pairs(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> Tensor:
        """Summaries of canonical correlations."""
        return summarised(left, right, pairs, self.summary)

    def caution(self, left: Sequence[Factor], right: Sequence[Factor], pairs: Pairs) -> str:
        """Of few samples for the components that are kept."""
        return caution_of_few_samples(
            left, right, pairs, instead="fewer components", held_out="cross_validated_svcca"
        )


def svcca(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    variance: float | None = None,
    components: int | None = None,
    summary: Summary = "mean",
) -> Tensor:
    """Mean canonical correlation of the leading principal components (SVCCA).

    A similarity in [0, 1]. Each representation is centred and reduced to its first singular
    directions; their canonical correlations are averaged over the smaller number of them.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        variance: Keep the fewest directions that hold at least this share of the variance, the sum
            of squared singular values; in (0, 1]. Default 0.99.
        components: Keep this number of directions instead (or the rank, if that is less).
        summary: ``"mean"`` or ``"mean_squared"``, as for `cca`.

    Returns:
        Scalar, float64 if either representation is, otherwise float32.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant, or n - 1 directions are kept. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf, an option out of range, or both.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import svcca
        >>> value = svcca(torch.randn(50, 200), torch.randn(50, 10), components=5)

    References:
        Raghu et al., "SVCCA: singular vector canonical correlation analysis", 2017, section 2.
        Cianfarani et al., "Understanding robust learning through the lens of representation
        similarities", 2022 (20 components).
    """
    return SVCCA(variance=variance, components=components, summary=summary)(x, y)
