"""Linear centred kernel alignment (CKA): of a pair, and in the form of grids and batches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy.typing as npt
import torch
from torch import Tensor

from repsim_fast._core.checks import as_tensor, check_choice, check_finite, check_matrix
from repsim_fast._core.precision import full_precision
from repsim_fast.ops import MIN_SAMPLES, Precision, centered_gram, cross_gram
from repsim_fast.similarity.base.accumulator import Accumulator
from repsim_fast.similarity.base.estimator import (
    CENTERING,
    ESTIMATORS,
    Estimator,
    known_chance,
)
from repsim_fast.similarity.base.hsic import Linear, alignments, linear, resolved, without_diagonal
from repsim_fast.similarity.base.measure import Info, Measure, register
from repsim_fast.similarity.base.pairs import Pairs
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.streaming.gram import GramAccumulator

# Largest entries of features whose Grams, and their squares, float32 holds.
SIZES = (1e-3, 1e3)


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


def check_pair(x: Tensor, y: Tensor, estimator: Estimator) -> int:
    """Checks two representations of the same samples; returns their number."""
    check_choice("estimator", estimator, ESTIMATORS)
    check_matrix("x", x)
    check_matrix("y", y)
    if x.shape[0] != y.shape[0]:
        raise ValueError(
            "y: expected the same samples as x, "
            f"got {y.shape[0]} rows against {x.shape[0]} rows of x"
        )
    for argument, features in (("x", x), ("y", y)):
        if features.shape[1] < 1:
            raise ValueError(
                f"{argument}: expected at least 1 feature, got shape {tuple(features.shape)}"
            )
    least = max(2, MIN_SAMPLES[CENTERING[estimator]])
    if x.shape[0] < least:
        raise ValueError(
            f"x: the {estimator} estimator needs at least {least} samples, got {x.shape[0]}"
        )
    return x.shape[0]


@full_precision()
def cka(
    x: Tensor | npt.NDArray[Any] | Prepared,  # (n, p)
    y: Tensor | npt.NDArray[Any] | Prepared,  # (n, q)
    *,
    estimator: Estimator = "unbiased",
    precision: Precision | None = None,
) -> Tensor:
    """Linear CKA: HSIC(x, y) / √(HSIC(x, x) HSIC(y, y)) with linear kernels.

    A similarity, 1 for representations that are equal up to rotation, isotropic scaling and
    translation. The biased form lies in [0, 1]; the unbiased (debiased) one has expectation about 0
    for unrelated representations, may be slightly negative, and is not clamped.

    Computed from the (p, q) products of features when these are few against the samples, otherwise
    from the (n, n) Grams; both are exact, in float32 also where one sample is 1e5 times as large as
    the others: products of features are then taken in float64.

    Args:
        x: Representation of n samples with p features, a tensor or array, or a prepared one.
        y: Representation of the same n samples with q features, likewise.
        estimator: ``"unbiased"`` (HSIC₁, at least 4 samples) or ``"biased"`` (at least 2).
        precision: Precision of products, see `ops.centered_gram`.

    Returns:
        Scalar tensor, float64 if either input is, otherwise float32; differentiable. NaN when the
        HSIC of a representation with itself is not positive, as that of a constant one.

    Raises:
        TypeError: An input is not a floating-point tensor.
        ValueError: Shapes do not fit, too few samples, NaN or Inf.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import cka
        >>> x = torch.randn(100, 20)
        >>> bool(torch.isclose(cka(x, 3 * x + 1), torch.tensor(1.0)))
        True

    References:
        Kornblith et al., "Similarity of neural network representations revisited", 2019, eq. 3-4.
        Song et al., "Feature selection via dependence maximization", 2012, eq. 5.
    """
    a, b = (z.features if isinstance(z, Prepared) else as_tensor(z) for z in (x, y))
    n = check_pair(a, b, estimator)
    dtype = torch.float64 if torch.float64 in (a.dtype, b.dtype) else torch.float32
    if a.dtype != b.dtype:
        a, b = a.to(dtype), b.to(dtype)
    p, q = a.shape[1], b.shape[1]
    scaled = _scaled(a), _scaled(b)
    # Multiplications: p q + (p² + q²)/2 a sample against (p + q) n / 2 of two half Grams.
    if precision is None and 2 * p * q + p * p + q * q < n * (p + q):
        xy, xx, yy = _feature_side(*scaled, estimator)
    else:
        centering = CENTERING[estimator]
        gram_x, gram_y = (
            centered_gram(z, centering=centering, packed=True, precision=precision) for z in scaled
        )
        xy, xx, yy = gram_x @ gram_y, gram_x @ gram_x, gram_y @ gram_y
    value = (xy / (xx.sqrt() * yy.sqrt())).to(dtype)
    if not bool(torch.isfinite(value.detach())):
        check_finite("x", a)
        check_finite("y", b)
    return value


def _scaled(
    x: Tensor,  # (n, p)
) -> Tensor:
    """Times a power of two that brings the largest entry near 1, if it is far from it: sums of
    fourth powers must stay within float32, and CKA does not change."""
    low, high = torch.aminmax(x.detach())
    largest = float(torch.maximum(-low, high))
    if largest == 0 or not math.isfinite(largest) or SIZES[0] <= largest <= SIZES[1]:
        return x
    return torch.ldexp(x, torch.tensor(-math.frexp(largest)[1]))


def _feature_side(
    x: Tensor,  # (n, p)
    y: Tensor,  # (n, q)
    estimator: Estimator,
) -> tuple[Tensor, Tensor, Tensor]:
    """<K, L>, <K, K> and <L, L> of the centred Grams without forming them."""
    dtype = torch.float64 if torch.float64 in (x.dtype, y.dtype) else torch.float32
    a, b = _centered(x.to(dtype)), _centered(y.to(dtype))
    products = [cross_gram(a, b), cross_gram(a, a), cross_gram(b, b)]
    xy, xx, yy = (product.square().sum() for product in products)
    if estimator == "biased":
        return xy, xx, yy
    k, l = a.square().sum(dim=1), b.square().sum(dim=1)  # noqa: E741  (K and L in the formula)
    own_x, own_y = without_diagonal(xx, k, k), without_diagonal(yy, l, l)
    if dtype == torch.float32 and not (resolved(own_x, xx) and resolved(own_y, yy)):
        return _feature_side(x.double(), y.double(), estimator)
    return without_diagonal(xy, k, l), own_x, own_y


def _centered(x: Tensor) -> Tensor:
    """Removes feature means twice: the first mean is rounded to a step of its own size, and what
    that leaves would break the identity above for features with a mean far from zero."""
    x = x - x.mean(dim=0)
    x -= x.mean(dim=0)
    return x
