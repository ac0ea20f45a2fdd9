"""L1 steps and projections: see `ops`, which exports the functions."""

from __future__ import annotations

import torch
from torch import Tensor

from repsim_fast.ops.directions import Scalar
from repsim_fast.ops.pgd.arguments import (
    UNIT_BOX,
    Bounds,
    Split,
    changed,
    per_sample_argument,
    projection_arguments,
    step_arguments,
)
from repsim_fast.ops.pgd.registration import StepCall, register_step
from repsim_fast.ops.reference import pgd as reference

_ops = torch.ops.repsim_fast


def _fraction(fraction: Scalar, x: Tensor) -> Split:
    if not isinstance(fraction, Tensor) and not 0 < fraction <= 1:
        raise ValueError(f"fraction: expected a number in (0, 1], got {fraction}")
    return per_sample_argument("fraction", fraction, x)


def pgd_l1_step(
    x_adv: Tensor,  # (N, ...)
    grad: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    step_size: Scalar,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    targeted: bool = False,
    fraction: Scalar = 0.01,
) -> Tensor:
    """One sparse L1 step and the exact projection on ball and box.

    ``v = x_adv + step_size * s / |s|_1`` with s = sign(grad) on the ``fraction`` of the entries
    with the largest absolute gradient (at least one; ties all count) among those that the box lets
    move, and 0 elsewhere; then `project_l1_box`.

    Args:
        x_adv: The iterate, shape and dtype of x.
        grad: Gradient of the loss to x_adv, shape of x, any floating dtype and strides.
        x: Clean images (N, ...), float32 or float64.
        step_size: L1 length of the step, a number or (N,).
        eps: Radius in units of the images, a number or (N,).
        bounds: Lowest and highest pixel value: numbers, (C,), or tensors that broadcast to an
            image; x lies within.
        targeted: Descend the loss instead.
        fraction: Share of the entries that move, in (0, 1], a number or (N,).

    Returns:
        The next iterate, a new tensor like x. Not differentiable.

    Raises:
        TypeError, ValueError, RuntimeError: As in `pgd_linf_step`; ``fraction`` not in (0, 1].

    Example:
        >>> import torch
        >>> from repsim_fast.ops import pgd_l1_step
        >>> x = torch.full((1, 4), 0.5)
        >>> grad = torch.tensor([[3.0, -2.0, 1.0, 0.0]])
        >>> pgd_l1_step(x, grad, x, step_size=0.5, eps=1.0, fraction=0.5)
        tensor([[0.7500, 0.2500, 0.5000, 0.5000]])

    References:
        Tramèr and Boneh, "Adversarial training and robustness for multiple perturbations", 2019.
        Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks", 2021.
    """
    arguments = step_arguments(x_adv, grad, x, step_size, eps, bounds, targeted)
    out: Tensor = _ops.pgd_l1_step(*arguments, *_fraction(fraction, x))
    return out


def pgd_l1_step_(
    x_adv: Tensor,  # (N, ...)
    grad: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    step_size: Scalar,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    targeted: bool = False,
    fraction: Scalar = 0.01,
) -> Tensor:
    """`pgd_l1_step` in place: returns x_adv, which must not share memory with x."""
    arguments = step_arguments(x_adv, grad, x, step_size, eps, bounds, targeted)
    _ops.pgd_l1_step_(*arguments, *_fraction(fraction, x))
    return changed(x_adv)


def project_l1_box(
    x_adv: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
) -> Tensor:
    """Euclidean projection on the L1 ball around x cut with the box, exact and without sorting.

    With u = x_adv - x and c_i the room that the box leaves entry i on u_i's side, the result is
    ``x + sign(u) min(max(|u| - t, 0), c)``: t = 0 if that lies in the ball, else the root of
    ``sum_i min(max(|u_i| - t, 0), c_i) = eps``, which Newton's method inside a bracket finds in
    some six passes over the entries. As exact as u in the dtype of x. Entries that do not change
    keep their bits.

    Args:
        x_adv: Points to project, shape and dtype of x.
        x: Clean images (N, ...) within the bounds, float32 or float64.
        eps: Radius, a number or (N,).
        bounds: Lowest and highest pixel value: numbers, (C,), or tensors that broadcast to an
            image.

    Returns:
        A new tensor like x. Not differentiable.

    Raises:
        TypeError, ValueError, RuntimeError: As in `pgd_linf_step`.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import project_l1_box
        >>> x = torch.tensor([[0.5, 0.5, 1.0]])
        >>> project_l1_box(torch.tensor([[1.0, 0.25, 1.5]]), x, eps=0.25)
        tensor([[0.7500, 0.5000, 1.0000]])

    References:
        Croce and Hein, "Mind the box: l1-APGD for sparse adversarial attacks", 2021, prop. 2.1.
    """
    arguments = projection_arguments(x_adv, x, eps, bounds)
    out: Tensor = _ops.pgd_l1_step(*arguments, 1.0, None)
    return out


def project_l1_box_(
    x_adv: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
) -> Tensor:
    """`project_l1_box` in place: returns x_adv."""
    _ops.pgd_l1_step_(*projection_arguments(x_adv, x, eps, bounds), 1.0, None)
    return changed(x_adv)


def _plain(call: StepCall, fraction: float, fractions: Tensor | None) -> Tensor:
    if call.grad is None:
        return reference.project_l1_box(call.x_adv, call.x, call.eps, call.low, call.high)
    share = fraction if fractions is None else fractions
    return reference.pgd_l1_step(call.x_adv, call.grad, *call[2:], share)


register_step("pgd_l1_step", _plain)
