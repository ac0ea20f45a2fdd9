"""Kernel alignment (CKA) in forms that are prepared once: linear for grids, and RBF."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from repsim_fast._core.checks import check_choice
from repsim_fast.ops import Precision
from repsim_fast.ops.centering import center_gram, pack_gram
from repsim_fast.similarity.base.accumulator import Accumulator
from repsim_fast.similarity.base.distances import squared_distances, squared_median
from repsim_fast.similarity.base.estimator import (
    CENTERING,
    ESTIMATORS,
    Estimator,
    known_chance,
)
from repsim_fast.similarity.base.hsic import Linear, alignments, linear
from repsim_fast.similarity.base.measure import Info, Measure, check_range, register
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.views import Triangle, inner_products
from repsim_fast.similarity.streaming.gram import GramAccumulator
from repsim_fast.similarity.streaming.samples import SampleMeasure

# A kernel of which centring leaves less than this, in units of rounding of the whole, is constant.
EQUAL_ULPS = 8


# Share of a kernel's norm that centring must leave for float32 to hold it, and else float64 does.
VARIED = 1e-2


def unit_triangle(x: Prepared, kernel: Callable[[Prepared], Tensor], centering: str) -> Triangle:
    """A kernel matrix, centred, packed and scaled to norm 1, in the dtype of the features."""
    packed, left = _centred(kernel(x), centering)
    if x.features.dtype == torch.float32 and left < VARIED:
        packed, left = _centred(kernel(x.double()), centering)
    if not EQUAL_ULPS * torch.finfo(x.dtype).eps < left < math.inf:  # also for NaN
        raise UndefinedError(f"{x.name}: expected a kernel that varies, got a constant one")
    norm = torch.linalg.vector_norm(packed, dtype=torch.float64)
    return Triangle((packed / norm.to(packed.dtype)).to(x.features.dtype), x.n_samples)


def _centred(gram: Tensor, centering: str) -> tuple[Tensor, float]:
    """A symmetric matrix, centred and packed, and its norm as a share of that before."""
    packed = pack_gram(center_gram(gram, centering), centering)
    whole = torch.linalg.vector_norm(pack_gram(gram.detach(), centering), dtype=torch.float64)
    left = torch.linalg.vector_norm(packed.detach(), dtype=torch.float64)
    return packed, float(left / whole)


@register
@dataclass(frozen=True)
class CKA(Measure[Linear]):
    """Linear CKA, see `cka`; this form is for grids and prepared representations."""

    info: ClassVar[Info] = Info(
        name="cka",
        title="linear CKA",
        kind="similarity",
        formula="HSIC(K, L) / √(HSIC(K, K) HSIC(L, L)), K = XXᵀ, L = YYᵀ; HSIC₁ (unbiased) or "
        "HSIC₀ (biased)",
        low=0.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="yes",
        cost="n p² (n² p for p ≥ n/2); n p² (n²)",
        source="Kornblith et al. 2019, eq. 3-4; Song et al. 2012, eq. 5",
        of_itself=1.0,
    )
    min_samples: ClassVar[int] = 4
    estimator: Estimator = "unbiased"

    def __post_init__(self) -> None:
        check_choice("estimator", self.estimator, ESTIMATORS)

    @property
    def known_chance(self) -> float | None:
        """That of the estimator."""
        return known_chance(self.estimator)

    def view(self, x: Prepared) -> Linear:
        """The centred Gram, or features that it comes from."""
        return linear(x, CENTERING[self.estimator])

    def pairs(self, left: Sequence[Linear], right: Sequence[Linear], pairs: Pairs) -> Tensor:
        """CKA."""
        return alignments(left, right, pairs)

    def accumulator(
        self,
        *,
        precision: Precision | None = None,
        jackknife: int | None = None,
        permutations: int | None = None,
        seed: int = 0,
        capacity: int = 0,
    ) -> Accumulator:
        """From Grams of batches: no features are kept; see `Measure.accumulator`."""
        if jackknife is not None:
            raise ValueError(
                f"jackknife: expected None for {self.info.name}, which has errors from its "
                f"batches, got {jackknife!r}"
            )
        if permutations is not None:
            raise ValueError(
                f"permutations: expected None for {self.info.name}, whose chance level is known "
                f"without any, got {permutations!r}"
            )
        return GramAccumulator(estimator=self.estimator, precision=precision, capacity=capacity)


@register
@dataclass(frozen=True)
class RVCoefficient(SampleMeasure[Linear], CKA):
    """See `rv_coefficient`."""

    info: ClassVar[Info] = Info(
        name="rv_coefficient",
        title="RV coefficient",
        kind="similarity",
        formula="‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖), equal to biased linear CKA",
        low=0.0,
        high=1.0,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="yes",
        cost="n p² (n² p for p ≥ n/2); n p² (n²)",
        source="Robert and Escoufier 1976",
        of_itself=1.0,
    )
    min_samples: ClassVar[int] = 2
    estimator: Estimator = field(default="biased", init=False)


# From this CKA on an angle comes from the difference of the Grams: 1 - CKA has too few digits left.
CLOSE = 0.999


@register
@dataclass(frozen=True)
class AngularCKADistance(SampleMeasure[Linear]):
    """See `angular_cka_distance`."""

    info: ClassVar[Info] = Info(
        name="angular_cka_distance",
        title="angular CKA distance",
        kind="distance",
        formula="arccos of biased linear CKA",
        low=0.0,
        high=math.pi / 2,
        invariant_to=("permutation", "rotation", "scale", "translation"),
        differentiable="where it is not 0",
        cost="n p² (n² p for p ≥ n/2); n p² (n²)",
        source="Williams et al. 2021; Lange et al. 2023",
        of_itself=0.0,
        metric=True,
    )
    min_samples: ClassVar[int] = 2

    def view(self, x: Prepared) -> Linear:
        """The centred Gram, or features that it comes from."""
        return linear(x, "double")

    def pairs(self, left: Sequence[Linear], right: Sequence[Linear], pairs: Pairs) -> Tensor:
        """Angles between Grams."""
        cosines = alignments(left, right, pairs)
        close = (cosines.detach() > CLOSE).nonzero().flatten().tolist()
        angles = torch.arccos(cosines.clamp(0.0, CLOSE))
        if not close:
            return angles
        halves = [
            torch.linalg.vector_norm(
                left[i].triangle().vector.double() - right[j].triangle().vector.double()
            )
            / 2
            for i, j in (pairs[k] for k in close)
        ]
        which = torch.tensor(close, device=angles.device)
        return angles.index_put((which,), 2 * torch.arcsin(torch.stack(halves)))


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


def rv_coefficient(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """RV coefficient: ‖XᵀY‖² / (‖XᵀX‖ ‖YᵀY‖) of centred features.

    A similarity in [0, 1], 1 for representations equal up to rotation, isotropic scaling and
    translation; the same number as ``cka(..., estimator="biased")``, from products of features.

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; differentiable.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import rv_coefficient
        >>> value = rv_coefficient(torch.randn(100, 5), torch.randn(100, 8))

    References:
        Robert and Escoufier, "A unifying tool for linear multivariate statistical methods: the
        RV-coefficient", 1976.
    """
    return RVCoefficient()(x, y)


def angular_cka_distance(
    x: Tensor | Prepared,  # (n, p)
    y: Tensor | Prepared,  # (n, q)
) -> Tensor:
    """Angle between centred linear Grams: arccos of biased linear CKA.

    A metric in [0, π/2], 0 for representations equal up to rotation, isotropic scaling and
    translation. (CKA itself, and 1 - CKA, break the triangle inequality.)

    Args:
        x: Representation of n samples with p features, or a prepared one.
        y: Representation of the same n samples with q features, or a prepared one.

    Returns:
        Scalar, float64 if either representation is, otherwise float32; differentiable where it is
        not 0.

    Raises:
        TypeError: An input is not a floating-point tensor.
        UndefinedError: A representation is constant. A ValueError.
        ValueError: Shapes do not fit, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import angular_cka_distance
        >>> x = torch.randn(100, 5)
        >>> bool(angular_cka_distance(x, 2 * x + 1) < 1e-5)
        True

    References:
        Williams et al., "Generalized shape metrics on neural representations", 2021.
        Lange et al., "Deep networks as paths on the manifold of neural representations", 2023.
    """
    return AngularCKADistance()(x, y)


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
