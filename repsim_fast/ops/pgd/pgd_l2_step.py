"""L2 steps and projections: see `ops`, which exports the functions."""

from __future__ import annotations

import torch
from torch import Tensor

from repsim_fast._core.checks import check_choice
from repsim_fast.ops.directions import Scalar
from repsim_fast.ops.pgd.arguments import (
    ORDERS,
    UNIT_BOX,
    Bounds,
    Order,
    changed,
    projection_arguments,
    step_arguments,
)
from repsim_fast.ops.pgd.registration import StepCall, register_step
from repsim_fast.ops.reference import pgd as reference

_ops = torch.ops.repsim_fast


def _clip_first(order: Order) -> bool:
    check_choice("order", order, ORDERS)
    return order == "clip_project"


def pgd_l2_step(
    x_adv: Tensor,  # (N, ...)
    grad: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    step_size: Scalar,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    targeted: bool = False,
    order: Order = "clip_project",
) -> Tensor:
    """One L2 step, back in ball and box.

    With ``v = x_adv + step_size * grad / |grad|_2``, norms taken in float64:

    - ``"clip_project"``: v is clipped to the box; then, if it lies outside the ball,
      ``x + (v - x) * eps / |v - x|_2``. Uses the whole radius.
    - ``"project_clip"``: the other way round; the box shortens the perturbation once more.

    Neither is the Euclidean projection on the intersection. Samples that are not outside the ball
    keep their bits.

    Args:
        x_adv: The iterate, shape and dtype of x.
        grad: Gradient of the loss to x_adv, shape of x, any floating dtype and strides; of any
            scale.
        x: Clean images (N, ...), float32 or float64.
        step_size: Step length, a number or (N,).
        eps: Radius in units of the images, a number or (N,).
        bounds: Lowest and highest pixel value: numbers, (C,), or tensors that broadcast to an
            image.
        targeted: Descend the loss instead.
        order: Which of ball and box comes first.

    Returns:
        The next iterate, a new tensor like x. Not differentiable.

    Raises:
        TypeError, ValueError, RuntimeError: As in `pgd_linf_step`; ``order`` unknown.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import pgd_l2_step
        >>> x = torch.full((1, 2), 0.5)
        >>> pgd_l2_step(x, torch.tensor([[3e-30, 4e-30]]), x, step_size=0.5, eps=0.25)
        tensor([[0.6500, 0.7000]])
    """
    arguments = step_arguments(x_adv, grad, x, step_size, eps, bounds, targeted)
    out: Tensor = _ops.pgd_l2_step(*arguments, _clip_first(order))
    return out


def pgd_l2_step_(
    x_adv: Tensor,  # (N, ...)
    grad: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    step_size: Scalar,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    targeted: bool = False,
    order: Order = "clip_project",
) -> Tensor:
    """`pgd_l2_step` in place: returns x_adv, which must not share memory with x."""
    arguments = step_arguments(x_adv, grad, x, step_size, eps, bounds, targeted)
    _ops.pgd_l2_step_(*arguments, _clip_first(order))
    return changed(x_adv)


def project_l2_box(
    x_adv: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    order: Order = "clip_project",
) -> Tensor:
    """Into the L2 ball around x and into the box, in the order of `pgd_l2_step`."""
    arguments = projection_arguments(x_adv, x, eps, bounds)
    out: Tensor = _ops.pgd_l2_step(*arguments, _clip_first(order))
    return out


def project_l2_box_(
    x_adv: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    order: Order = "clip_project",
) -> Tensor:
    """`project_l2_box` in place: returns x_adv."""
    arguments = projection_arguments(x_adv, x, eps, bounds)
    _ops.pgd_l2_step_(*arguments, _clip_first(order))
    return changed(x_adv)


def _plain(call: StepCall, clip_first: bool) -> Tensor:
    order: Order = "clip_project" if clip_first else "project_clip"
    if call.grad is None:
        return reference.project_l2_box(call.x_adv, call.x, call.eps, call.low, call.high, order)
    return reference.pgd_l2_step(call.x_adv, call.grad, *call[2:], order)


register_step("pgd_l2_step", _plain)
