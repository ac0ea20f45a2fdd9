"""Attack steps, projections and random starts, compiled: see `ops`, which exports them.

All functions here take images x (N, ...) of float32 or float64 and keep the samples of a batch
apart. A step's result is a constant for autograd: no attack differentiates through its steps.

Arguments that the functions share:

x_adv: The iterate, shape and dtype of x; changed in place by the functions whose name ends in _.
grad: Gradient of the loss to x_adv, shape of x, any floating dtype and strides.
eps, step_size: Radius and step length in the norm, a number or one for each sample (N,).
bounds: Lowest and highest pixel value: numbers, one per channel (C,), or tensors that broadcast
    to an image.
targeted: Descend the loss instead.

A gradient's scale does not matter: one of 1e-40 moves a sample as far as one of 1e30. A zero
gradient does not move it. A NaN entry counts as zero, an infinite one as the largest finite number.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from repsim_fast._core.checks import FLOATING, check_choice
from repsim_fast.ops import extension

Scalar = float | Tensor
Bounds = tuple[Scalar, Scalar]
Norm = Literal["linf", "l2", "l1"]
Order = Literal["clip_project", "project_clip"]

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
ORDERS: tuple[Order, ...] = ("clip_project", "project_clip")
UNIT_BOX: Bounds = (0.0, 1.0)

_Split = tuple[float, Tensor | None]
_Arguments = tuple[float | Tensor | None, ...]
_ops = torch.ops.repsim_fast


# ---- checks: of numbers and shapes only, for a tensor's values would have to come from the device.
# They cost as much as the step of a small batch, hence the short cuts for plain numbers; devices
# are compared by the operators.


def _check_x(x: Tensor) -> None:
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}")
    if x.dtype is not torch.float32 and x.dtype is not torch.float64:
        raise TypeError(f"x: expected float32 or float64, got {x.dtype}")
    if x.ndim < 2:
        raise ValueError(f"x: expected a batch (N, ...), got shape {tuple(x.shape)}")
    if extension.cuda_missing and x.is_cuda:
        raise RuntimeError(f"x: is on {x.device}, but {extension.cuda_missing}")


def _check_like(argument: str, t: Tensor, x: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    if not isinstance(t, Tensor):
        raise TypeError(f"{argument}: expected a torch.Tensor, got {type(t).__name__}")
    if t.dtype not in dtypes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{argument}: expected {wanted}, got {t.dtype}")
    if t.shape != x.shape:
        raise ValueError(
            f"{argument}: expected the shape of x, {tuple(x.shape)}, got {tuple(t.shape)}"
        )


def _per_sample(argument: str, value: Scalar, x: Tensor) -> _Split:
    if type(value) is float and value >= 0:
        return value, None
    if isinstance(value, Tensor):
        if value.ndim > 1 or (value.ndim == 1 and value.shape[0] != x.shape[0]):
            raise ValueError(
                f"{argument}: expected a number or a tensor of shape ({x.shape[0]},), "
                f"got shape {tuple(value.shape)}"
            )
        return 0.0, value.to(x.dtype).expand(x.shape[0])
    if not value >= 0:
        raise ValueError(f"{argument}: expected a number that is not negative, got {value}")
    return float(value), None


def _bound(argument: str, value: Scalar, x: Tensor) -> _Split:
    if type(value) is float and value == value:
        return value, None
    if not isinstance(value, Tensor):
        if math.isnan(value):
            raise ValueError(f"bounds: {argument} must not be NaN")
        return float(value), None
    bound = value.to(x.dtype)
    if bound.ndim == x.ndim and bound.shape[0] == 1:
        bound = bound.squeeze(0)
    if bound.ndim == 1 and x.ndim > 2:
        bound = bound.view(-1, *[1] * (x.ndim - 2))
    try:
        return 0.0, bound.expand(x.shape[1:])
    except RuntimeError:
        raise ValueError(
            f"bounds: {argument} must be a number, one value per channel, or broadcast to an image "
            f"of shape {tuple(x.shape[1:])}, got shape {tuple(value.shape)}"
        ) from None


def _region(x: Tensor, eps: Scalar, bounds: Bounds) -> _Arguments:
    """eps, radii, low, lows, high, highs of the operators."""
    low, lows = _bound("low", bounds[0], x)
    high, highs = _bound("high", bounds[1], x)
    if lows is None and highs is None and low > high:
        raise ValueError(f"bounds: the lower one must not exceed the upper, got {bounds}")
    return *_per_sample("eps", eps, x), low, lows, high, highs


def _step(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    step_size: Scalar,
    eps: Scalar,
    bounds: Bounds,
    targeted: bool,
) -> _Arguments:
    """The operators' arguments up to those of one norm."""
    _check_x(x)
    _check_like("x_adv", x_adv, x, (x.dtype,))
    _check_like("grad", grad, x, FLOATING)
    size, sizes = _per_sample("step_size", step_size, x)
    if targeted:
        size, sizes = -size, None if sizes is None else -sizes
    return x_adv, grad, x, size, sizes, *_region(x, eps, bounds)


def _projection(x_adv: Tensor, x: Tensor, eps: Scalar, bounds: Bounds) -> _Arguments:
    """The same without a step."""
    _check_x(x)
    _check_like("x_adv", x_adv, x, (x.dtype,))
    return x_adv, None, x, 0.0, None, *_region(x, eps, bounds)


def _changed(x_adv: Tensor) -> Tensor:
    """Tells autograd that x_adv has new values, as torch's own in-place functions do."""
    torch.autograd.graph.increment_version(x_adv)
    return x_adv


# ---- Linf


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
    arguments = _step(x_adv, grad, x, step_size, eps, bounds, targeted)
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
    _ops.pgd_linf_step_(*_step(x_adv, grad, x, step_size, eps, bounds, targeted))
    return _changed(x_adv)


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
    arguments = _projection(x_adv, x, eps, bounds)
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
    _ops.pgd_linf_step_(*_projection(x_adv, x, eps, bounds))
    return _changed(x_adv)


# ---- L2


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
    arguments = _step(x_adv, grad, x, step_size, eps, bounds, targeted)
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
    arguments = _step(x_adv, grad, x, step_size, eps, bounds, targeted)
    _ops.pgd_l2_step_(*arguments, _clip_first(order))
    return _changed(x_adv)


def project_l2_box(
    x_adv: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    order: Order = "clip_project",
) -> Tensor:
    """Into the L2 ball around x and into the box, in the order of `pgd_l2_step`."""
    arguments = _projection(x_adv, x, eps, bounds)
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
    arguments = _projection(x_adv, x, eps, bounds)
    _ops.pgd_l2_step_(*arguments, _clip_first(order))
    return _changed(x_adv)


# ---- L1


def _fraction(fraction: Scalar, x: Tensor) -> _Split:
    if not isinstance(fraction, Tensor) and not 0 < fraction <= 1:
        raise ValueError(f"fraction: expected a number in (0, 1], got {fraction}")
    return _per_sample("fraction", fraction, x)


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
    arguments = _step(x_adv, grad, x, step_size, eps, bounds, targeted)
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
    arguments = _step(x_adv, grad, x, step_size, eps, bounds, targeted)
    _ops.pgd_l1_step_(*arguments, *_fraction(fraction, x))
    return _changed(x_adv)


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
    arguments = _projection(x_adv, x, eps, bounds)
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
    _ops.pgd_l1_step_(*_projection(x_adv, x, eps, bounds), 1.0, None)
    return _changed(x_adv)


# ---- random starts


def random_start(
    x: Tensor,  # (N, ...)
    *,
    norm: Norm,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    seed: int,
    offset: int = 0,
) -> Tensor:
    """Points uniform in the balls around x, clipped to the box.

    The noise is a function of seed, offset, the sample's place in the batch and the entry's place
    in memory alone (Philox4x32-10), the same on every device: no generator is involved, no state
    changes. Draws with different offsets are independent.

    Args:
        x: Clean images (N, ...), float32 or float64.
        norm: "linf": every entry uniform in (-eps, eps). "l2": a Gaussian direction at the radius
            ``eps * U^(1/d)``. "l1": spacings of sorted uniforms with random signs.
        eps: Radius, a number or (N,).
        bounds: Lowest and highest pixel value: numbers, (C,), or tensors that broadcast to an
            image.
        seed: Any 64-bit integer.
        offset: Which draw from this seed, any 64-bit integer.

    Returns:
        A new tensor like x.

    Raises:
        TypeError, ValueError, RuntimeError: As in `pgd_linf_step`; ``norm`` unknown.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import random_start
        >>> x = torch.full((8, 3, 4, 4), 0.5)
        >>> start = random_start(x, norm="l2", eps=0.25, seed=0)
        >>> bool(((start - x).flatten(1).norm(dim=1) <= 0.25).all())
        True

    References:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    _check_x(x)
    check_choice("norm", norm, NORMS)
    out: Tensor = _ops.random_start(x, norm, *_region(x, eps, bounds), seed, offset)
    return out


def random_start_(
    x_adv: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    norm: Norm,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    seed: int,
    offset: int = 0,
) -> Tensor:
    """`random_start` into x_adv, whatever that held; returns it. x_adv may be x itself."""
    _check_x(x)
    _check_like("x_adv", x_adv, x, (x.dtype,))
    check_choice("norm", norm, NORMS)
    _ops.random_start_(x_adv, x, norm, *_region(x, eps, bounds), seed, offset)
    return _changed(x_adv)


# ---- what torch needs to know of the operators besides their kernels


def _register(name: str, position_of_x: int) -> None:
    """Fakes of an operator and its in-place form, and that they are constants for autograd."""

    def out_of_place(*arguments: Any) -> Tensor:
        return torch.empty_like(arguments[position_of_x])

    def in_place(*arguments: Any) -> None:
        return None

    for operator, fake in ((name, out_of_place), (f"{name}_", in_place)):
        torch.library.register_fake(f"repsim_fast::{operator}", fake)
        _library.impl(operator, torch.library.fallthrough_kernel, "Autograd")


_library: Any = torch.library.Library("repsim_fast", "IMPL")  # type: ignore[no-untyped-call]
_register("pgd_linf_step", position_of_x=2)
_register("pgd_l2_step", position_of_x=2)
_register("pgd_l1_step", position_of_x=2)
_register("random_start", position_of_x=0)
