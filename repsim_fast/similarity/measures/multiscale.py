"""Multi-scale intrinsic distance: heat flow on the graphs of nearest neighbours."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast.similarity.base.measure import Info, check_count, register
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.base.views import Number
from repsim_fast.similarity.measures.neighbours import MutualKNN
from repsim_fast.similarity.streaming.samples import SampleMeasure

# Times at which heat traces are compared, as in the authors' experiments; the weight
# exp(-2(t + 1/t)) is largest at 1 and small at both ends.
TIMES = 256


@register
@dataclass(frozen=True)
class IntrinsicMultiscaleDistance(SampleMeasure[Number]):
    """See `intrinsic_multiscale_distance`."""

    info: ClassVar[Info] = Info(
        name="intrinsic_multiscale_distance",
        title="intrinsic multi-scale distance",
        kind="distance",
        formula="max over t of exp(-2(t + 1/t)) |hₓ(t) - hᵧ(t)|, h(t) = mean of exp(-tλ), λ the "
        "eigenvalues of the normalised Laplacian of the graph of k nearest neighbours",
        low=0.0,
        high=math.exp(-4),
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="no",
        cost="n² p + n³; 1",
        source="Tsitsulin et al. 2020",
        of_itself=0.0,
    )
    k: int = 5

    def __post_init__(self) -> None:
        check_count("k", self.k, 1, 2**31)

    def view(self, x: Prepared) -> Number:
        """Mean heat traces at all times, times their weights."""
        neighbours = MutualKNN(k=self.k, metric="euclidean").view(x).neighbours
        n = x.n_samples
        edges = torch.zeros(n, n, dtype=torch.float64, device=neighbours.device)
        edges.scatter_(1, neighbours, 1.0)
        edges = torch.maximum(edges, edges.mT)
        scale = edges.sum(dim=1).rsqrt()
        laplacian = torch.eye(n).to(edges) - scale[:, None] * edges * scale[None, :]
        eigenvalues = torch.linalg.eigvalsh(laplacian)
        times = torch.logspace(-1, 1, TIMES, dtype=torch.float64, device=edges.device)
        traces = torch.exp(-times[:, None] * eigenvalues[None, :]).mean(dim=1)
        return Number(torch.exp(-2 * (times + 1 / times)) * traces)

    def pairs(self, left: Sequence[Number], right: Sequence[Number], pairs: Pairs) -> Tensor:
        """Largest differences."""
        return torch.stack([(left[i].value - right[j].value).abs().max() for i, j in pairs])


def intrinsic_multiscale_distance(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    k: int = 5,
) -> Tensor:
    """Multi-scale intrinsic distance (IMD) of the shapes of two point clouds.

    A distance in [0, e⁻⁴]: the largest difference over times t in [0.1, 10] of mean heat traces
    on the graphs of k nearest neighbours, weighted by exp(-2(t + 1/t)). Which sample is where does
    not matter: it compares shapes, not representations of the same samples. Eigenvalues are exact,
    where the authors' package estimates the trace (and multiplies it by 10⁶).

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of as many samples with q features, or a prepared one.
        k: Neighbours by Euclidean distance, 1 to n - 1; an edge joins two samples if either is
            among the neighbours of the other.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; not differentiable.

    Raises:
        TypeError: An input is not a floating-point tensor, or k not an int.
        UndefinedError: All samples are equal. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf, k out of range.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import intrinsic_multiscale_distance
        >>> value = intrinsic_multiscale_distance(torch.randn(50, 5), torch.randn(50, 8))

    References:
        Tsitsulin et al., "The shape of data: intrinsic distance for data distributions", 2020.
    """
    return IntrinsicMultiscaleDistance(k=k)(x, y)
