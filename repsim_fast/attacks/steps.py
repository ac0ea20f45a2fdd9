"""Steps, projections and random starts of gradient attacks: pure functions of tensors.

The only place where an attack's state is moved. Every function returns a new tensor, keeps every
sample apart, and takes, beside the images x and the iterate adv (N, ...):

eps, size: radius and step, a number or a tensor (N,).
low, high: box, numbers or tensors that broadcast against x.
"""

from __future__ import annotations

import torch
from torch import Tensor

Scalar = float | Tensor


def per_sample(value: Scalar, x: Tensor) -> Scalar:
    """Shape (N,) to (N, 1, ..., 1); a number stays one."""
    return value.view(-1, *[1] * (x.ndim - 1)) if isinstance(value, Tensor) else value


def linf_project(adv: Tensor, x: Tensor, eps: Scalar, low: Scalar, high: Scalar) -> Tensor:
    """Euclidean (and exact) projection on the Linf ball around x cut with the box."""
    eps = per_sample(eps, x)
    lower, upper = (x - eps).clamp(min=low), (x + eps).clamp(max=high)
    return adv.clamp(lower, upper)


def linf_step(
    adv: Tensor, gradient: Tensor, x: Tensor, size: Scalar, eps: Scalar, low: Scalar, high: Scalar
) -> Tensor:
    """Ascend by size * sign(gradient), then project; sign(NaN) is 0 in torch: no move there."""
    return linf_project(adv + per_sample(size, x) * gradient.sign(), x, eps, low, high)


def linf_random(
    x: Tensor, eps: Scalar, low: Scalar, high: Scalar, generator: torch.Generator
) -> Tensor:
    """Uniform in the Linf ball, then clipped to the box."""
    noise = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    return linf_project(x + per_sample(eps, x) * (2.0 * noise - 1.0), x, eps, low, high)
