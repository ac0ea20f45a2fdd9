"""The RV coefficient, by which statistics knows biased linear CKA."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from repsim_fast.similarity.base.estimator import Estimator
from repsim_fast.similarity.base.hsic import Linear
from repsim_fast.similarity.base.measure import Info, register
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.measures.cka import CKA
from repsim_fast.similarity.streaming.samples import SampleMeasure


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
