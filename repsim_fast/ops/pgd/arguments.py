"""Arguments of steps, projections and random starts, checked and as the operators take them.

Checks are of numbers, shapes and devices only, for a tensor's values would have to come from the
device. They cost as much as the step of a small batch, hence the short cuts for plain numbers.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from repsim_fast._core.checks import FLOATING
from repsim_fast.ops.checks import check_card, check_same_device
from repsim_fast.ops.directions import Scalar

Bounds = tuple[Scalar, Scalar]
"""Lowest and highest pixel value: numbers, tensors (C,), or tensors that broadcast to an image."""
Norm = Literal["linf", "l2", "l1"]
Order = Literal["clip_project", "project_clip"]

NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
ORDERS: tuple[Order, ...] = ("clip_project", "project_clip")
UNIT_BOX: Bounds = (0.0, 1.0)

Split = tuple[float, Tensor | None]
"""A number, and the tensor that counts in its place if there is one."""
Arguments = tuple[float | Tensor | None, ...]


def check_images(x: Tensor) -> None:
    """Raises TypeError or ValueError unless `x` is a batch (N, ...) of float32 or float64, and
    RuntimeError where the kernels do not run on its card."""
    if not isinstance(x, Tensor):
        raise TypeError(f"x: expected a torch.Tensor, got {type(x).__name__}")
    if x.dtype is not torch.float32 and x.dtype is not torch.float64:
        raise TypeError(f"x: expected float32 or float64, got {x.dtype}")
    if x.ndim < 2:
        raise ValueError(f"x: expected a batch (N, ...), got shape {tuple(x.shape)}")
    check_card("x", x)


def check_like(argument: str, t: Tensor, x: Tensor, dtypes: tuple[torch.dtype, ...]) -> None:
    """Raises unless `t` is a tensor of one of the dtypes with the shape and device of `x`."""
    if not isinstance(t, Tensor):
        raise TypeError(f"{argument}: expected a torch.Tensor, got {type(t).__name__}")
    if t.dtype not in dtypes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise TypeError(f"{argument}: expected {wanted}, got {t.dtype}")
    if t.shape != x.shape:
        raise ValueError(
            f"{argument}: expected the shape of x, {tuple(x.shape)}, got {tuple(t.shape)}"
        )
    if t.device != x.device:
        check_same_device(x=x, **{argument: t})


def per_sample_argument(argument: str, value: Scalar, x: Tensor) -> Split:
    """A number that is not negative, or one for each sample."""
    if type(value) is float and value >= 0:
        return value, None
    if isinstance(value, Tensor):
        if value.ndim > 1 or (value.ndim == 1 and value.shape[0] != x.shape[0]):
            raise ValueError(
                f"{argument}: expected a number or a tensor of shape ({x.shape[0]},), "
                f"got shape {tuple(value.shape)}"
            )
        return 0.0, _real(argument, value, x).expand(x.shape[0])
    if not value >= 0:
        raise ValueError(f"{argument}: expected a number that is not negative, got {value}")
    return float(value), None


def region_arguments(x: Tensor, eps: Scalar, bounds: Bounds) -> Arguments:
    """eps, radii, low, lows, high, highs of the operators."""
    low, lows = _bound("low", bounds[0], x)
    high, highs = _bound("high", bounds[1], x)
    if lows is None and highs is None and low > high:
        raise ValueError(f"bounds: the lower one must not exceed the upper, got {bounds}")
    return *per_sample_argument("eps", eps, x), low, lows, high, highs


def step_arguments(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    step_size: Scalar,
    eps: Scalar,
    bounds: Bounds,
    targeted: bool,
) -> Arguments:
    """The operators' arguments up to those of one norm."""
    check_images(x)
    check_like("x_adv", x_adv, x, (x.dtype,))
    check_like("grad", grad, x, FLOATING)
    size, sizes = per_sample_argument("step_size", step_size, x)
    if targeted:
        size, sizes = -size, None if sizes is None else -sizes
    return x_adv, grad, x, size, sizes, *region_arguments(x, eps, bounds)


def projection_arguments(x_adv: Tensor, x: Tensor, eps: Scalar, bounds: Bounds) -> Arguments:
    """The same without a step."""
    check_images(x)
    check_like("x_adv", x_adv, x, (x.dtype,))
    return x_adv, None, x, 0.0, None, *region_arguments(x, eps, bounds)


def changed(x_adv: Tensor) -> Tensor:
    """Tells autograd that x_adv has new values, as torch's own in-place functions do."""
    torch.autograd.graph.increment_version(x_adv)
    return x_adv


def _real(argument: str, value: Tensor, x: Tensor) -> Tensor:
    """The value in the dtype of x, whose device it is on."""
    if value.device != x.device:
        check_same_device(x=x, **{argument: value})
    if value.dtype is x.dtype:
        return value
    if value.is_complex() or value.dtype is torch.bool:
        raise TypeError(f"{argument}: expected real numbers, got {value.dtype}")
    return value.to(x.dtype)


def _bound(argument: str, value: Scalar, x: Tensor) -> Split:
    if type(value) is float and value == value:
        return value, None
    if not isinstance(value, Tensor):
        if math.isnan(value):
            raise ValueError(f"bounds: {argument} must not be NaN")
        return float(value), None
    bound = _real(argument, value, x)
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
