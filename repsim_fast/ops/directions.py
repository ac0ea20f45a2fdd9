"""Gradients at length one, sample by sample, in plain torch.

Free of scale: a gradient of 1e-30 gives the direction of one of 1e30. A NaN entry counts as zero,
an infinite one as the largest number, and a zero gradient has the direction zero.
"""

from __future__ import annotations

import torch
from torch import Tensor

Scalar = float | Tensor
"""A number, or one for each sample (N,)."""


def per_sample(value: Scalar, x: Tensor) -> Scalar:
    """Shape (N,) to (N, 1, ..., 1), in the dtype of x; a number stays one."""
    if not isinstance(value, Tensor):
        return value
    return value.to(x.dtype).view(-1, *[1] * (x.ndim - 1))


def norms(
    x: Tensor,  # (N, ...)
    p: float,
) -> Tensor:
    """Norm of each sample, (N, 1, ..., 1)."""
    norm: Tensor = torch.linalg.vector_norm(x, p, dim=tuple(range(1, x.ndim)), keepdim=True)
    return norm


def l2_direction(
    gradient: Tensor,  # (N, ...)
) -> Tensor:
    """gradient / |gradient|_2 of each sample, in at least float32."""
    return _normalised(gradient, 2)


def l1_normalise(
    gradient: Tensor,  # (N, ...)
) -> Tensor:
    """gradient / |gradient|_1, dense: the scale at which momentum adds gradients up."""
    return _normalised(gradient, 1)


def _normalised(gradient: Tensor, p: float) -> Tensor:
    gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32)).nan_to_num(nan=0.0)
    # By the largest entry first, so that no power over- or underflows.
    largest = norms(gradient, torch.inf)
    unit = torch.where(largest > 0, gradient / largest, 0.0)
    return unit / norms(unit, p).clamp(min=1.0)  # the norm is at least 1, or the row is zero
