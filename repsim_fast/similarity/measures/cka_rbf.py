"""CKA with Gaussian (RBF) kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast._core.checks import check_choice
from repsim_fast.similarity.base.distances import squared_distances, squared_median
from repsim_fast.similarity.base.estimator import (
    CENTERING,
    ESTIMATORS,
    Estimator,
    known_chance,
)
from repsim_fast.similarity.base.kernels import unit_triangle
from repsim_fast.similarity.base.measure import Info, check_range, register
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.views import Triangle, inner_products
from repsim_fast.similarity.streaming.samples import SampleMeasure


@register
@dataclass(frozen=True)
class RBFCKA(SampleMeasure[Triangle]):
    """See `cka_rbf`."""

    info: ClassVar[Info] = Info(
        name="cka_rbf",
        title="RBF CKA",
        kind="similarity",
        formula="CKA with K = exp(-‖xᵢ - xⱼ‖² / (2 b² m)), b the bandwidth, m the median of all n² "
        "squared distances",
        low=0.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="yes",
        cost="n² p + n² log n; n²",
        source="Kornblith et al. 2019, section 3 and appendix",
        of_itself=1.0,
    )
    min_samples: ClassVar[int] = 4
    bandwidth: float = 0.5
    estimator: Estimator = "unbiased"

    def __post_init__(self) -> None:
        check_choice("estimator", self.estimator, ESTIMATORS)
        check_range("bandwidth", self.bandwidth, 0.0, math.inf, open_low=True)

    @property
    def known_chance(self) -> float | None:
        """That of the estimator."""
        return known_chance(self.estimator)

    def view(self, x: Prepared) -> Triangle:
        """Centred kernel."""
        return unit_triangle(x, self._kernel, CENTERING[self.estimator])

    def _kernel(self, x: Prepared) -> Tensor:
        distances = squared_distances(x)
        median = squared_median(distances)
        if float(median.detach()) == 0.0:
            raise UndefinedError(
                f"{x.name}: the median distance of samples is 0, so that it gives no bandwidth"
            )
        return torch.exp(distances / (-2 * self.bandwidth**2 * median))

    def pairs(self, left: Sequence[Triangle], right: Sequence[Triangle], pairs: Pairs) -> Tensor:
        """CKA."""
        return inner_products(left, right, pairs)


def cka_rbf(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
    *,
    bandwidth: float = 0.5,
    estimator: Estimator = "unbiased",
) -> Tensor:
    """CKA with Gaussian (RBF) kernels, each scaled by its own median distance.

    A similarity, 1 for representations equal up to rotation, isotropic scaling and translation;
    the biased form lies in [0, 1]. Kernels are exp(-‖xᵢ - xⱼ‖² / (2σ²)) with
    σ² = bandwidth² × median, the median taken over all n² squared distances, the n zeros of samples
    with themselves included.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.
        bandwidth: σ as a fraction of the root of the median squared distance, above 0.
        estimator: ``"unbiased"`` (HSIC₁) or ``"biased"``, the form of Kornblith et al.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; differentiable.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant, or half of its samples coincide. A ValueError.
        ValueError: Shapes do not fit, fewer than 4 samples, NaN or Inf, an option out of range.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cka_rbf
        >>> value = cka_rbf(torch.randn(100, 5), torch.randn(100, 8), estimator="biased")

    References:
        Kornblith et al., "Similarity of neural network representations revisited", 2019, section 3.
    """
    return RBFCKA(bandwidth=bandwidth, estimator=estimator)(x, y)
