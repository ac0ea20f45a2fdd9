"""Linf steps and projections: see `ops`, which exports the functions."""

from __future__ import annotations

import torch
from torch import Tensor

from repsim_fast.ops.directions import Scalar
from repsim_fast.ops.pgd.arguments import (
    UNIT_BOX,
    Bounds,
    changed,
    projection_arguments,
    step_arguments,
)
from repsim_fast.ops.pgd.registration import StepCall, register_step
from repsim_fast.ops.reference import pgd as reference

_ops = torch.ops.repsim_fast


def pgd_linf_step(
    x_adv: Tensor,  # (N, ...)
    grad: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    step_size: Scalar,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    targeted: bool = False,
) -> Tensor:
    """One Linf step, back in ball and box: three reads and one write for an entry.

    ``clamp(clamp(x_adv + step_size * sign(grad), x - eps, x + eps), low, high)``, the bits of these
    operations one after another; ``sign(NaN)`` is 0.

    Args:
        x_adv: The iterate, shape and dtype of x.
        grad: Gradient of the loss to x_adv, shape of x, any floating dtype and strides.
        x: Clean images (N, ...), float32 or float64.
        step_size: Step length, a number or (N,).
        eps: Radius in units of the images, a number or (N,).
        bounds: Lowest and highest pixel value: numbers, (C,), or tensors that broadcast to an
            image.
        targeted: Descend the loss instead.

    Returns:
        The next iterate, a new tensor like x. Not differentiable.

    Raises:
        TypeError: ``x`` is not float32 or float64, ``x_adv`` of another dtype, ``grad`` not
            floating.
        ValueError: Shapes that do not fit; a negative or NaN ``eps`` or ``step_size``.
        RuntimeError: Tensors on different devices, or on a GPU without CUDA kernels.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import pgd_linf_step
        >>> x = torch.full((1, 3), 0.5)
        >>> pgd_linf_step(x, torch.tensor([[2.0, -1e-30, 0.0]]), x, step_size=0.25, eps=0.125)
        tensor([[0.6250, 0.3750, 0.5000]])

    References:
        Madry et al., "Towards deep learning models resistant to adversarial attacks", 2018.
    """
    arguments = step_arguments(x_adv, grad, x, step_size, eps, bounds, targeted)
    out: Tensor = _ops.pgd_linf_step(*arguments)
    return out


def pgd_linf_step_(
    x_adv: Tensor,  # (N, ...)
    grad: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    step_size: Scalar,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    targeted: bool = False,
) -> Tensor:
    """`pgd_linf_step` in place: returns x_adv, which must not share memory with x."""
    _ops.pgd_linf_step_(*step_arguments(x_adv, grad, x, step_size, eps, bounds, targeted))
    return changed(x_adv)


def project_linf_box(
    x_adv: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
) -> Tensor:
    """Euclidean projection on the Linf ball around x cut with the box, exact.

    Arguments and errors as in `pgd_linf_step`.
    """
    arguments = projection_arguments(x_adv, x, eps, bounds)
    out: Tensor = _ops.pgd_linf_step(*arguments)
    return out


def project_linf_box_(
    x_adv: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
) -> Tensor:
    """`project_linf_box` in place: returns x_adv."""
    _ops.pgd_linf_step_(*projection_arguments(x_adv, x, eps, bounds))
    return changed(x_adv)


def _plain(call: StepCall) -> Tensor:
    if call.grad is None:
        return reference.project_linf_box(call.x_adv, call.x, call.eps, call.low, call.high)
    return reference.pgd_linf_step(call.x_adv, call.grad, *call[2:])


register_step("pgd_linf_step", _plain)
