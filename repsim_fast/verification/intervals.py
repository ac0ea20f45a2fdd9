"""Bounds of each value of a network from those of the values it is made of (IBP)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from repsim_fast._core.batch_checks import images_device
from repsim_fast._core.checks import check_finite, check_number

from .graph import Node
from .operations import Cat, Input, MaxPool, ReLU, Sum
from .rounding import away, slack

Bounds = tuple[float | Tensor, float | Tensor]
"""Least and largest value of a pixel."""


@dataclass(frozen=True)
class Interval:
    """Bounds (N, ...) of a node's values, and how much its own arithmetic may round."""

    low: Tensor
    high: Tensor
    error: Tensor

    def magnitude(self) -> Tensor:
        """The largest that a value may be, without its sign."""
        return torch.maximum(self.low.abs(), self.high.abs())


def ball(x: Tensor, eps: float, bounds: Bounds | None) -> Interval:
    """Every image that a ball holds, rounded outwards."""
    images_device(x)
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be in torch.float32 or torch.float64, got {x.dtype}")
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x must be a non-empty batch (N, ...), got shape {tuple(x.shape)}")
    check_finite("x", x)
    check_number("eps", eps)
    low, high = x, x
    if eps > 0:
        # What an attack computes as x + eps rounds, and so does eps itself.
        room = eps * (1 + 2 * torch.finfo(x.dtype).eps)
        low, high = away(x - room, upwards=False), away(x + room, upwards=True)
    if bounds is not None:
        least, largest = limits(x, bounds)
        if not bool(((x >= least) & (x <= largest)).all()):
            raise ValueError(f"x must lie in [{least}, {largest}] (bounds), got values outside")
        low, high = low.clamp(min=least), high.clamp(max=largest)
    return Interval(low, high, torch.zeros_like(x))


def limits(x: Tensor, bounds: Bounds) -> Bounds:
    """The pair of ``bounds`` as what broadcasts against images ``x``.

    Raises:
        TypeError: No pair, or not of numbers or tensors.
        ValueError: A tensor that is neither one value a channel nor broadcasts to an image.
    """
    if not isinstance(bounds, tuple | list) or len(bounds) != 2:
        raise TypeError(f"bounds must be a pair (low, high) or None, got {bounds!r}")
    low, high = (_limit(x, bound) for bound in bounds)
    return low, high


def _limit(x: Tensor, bound: float | Tensor) -> float | Tensor:
    if not isinstance(bound, int | float | Tensor):
        raise TypeError(f"bounds must be a pair of numbers or tensors, got {bound!r} in it")
    if not isinstance(bound, Tensor):
        return bound
    # Of channels, as those of attacks.
    spread = bound.view(-1, *[1] * (x.ndim - 2)) if bound.ndim == 1 else bound
    try:
        spread.expand(x.shape[1:])
    except RuntimeError:
        raise ValueError(
            "bounds must be numbers, one value per channel, or broadcast to an image of shape "
            f"{tuple(x.shape[1:])}, got shape {tuple(bound.shape)}"
        ) from None
    return spread.to(x)


def propagated(node: Node, inputs: list[Interval], images: Interval, rounded: bool) -> Interval:
    """Bounds of one operation's values from bounds of its inputs' (IBP)."""
    operation = node.operation
    if isinstance(operation, Input):
        return images
    first = inputs[0]
    if isinstance(operation, ReLU):
        return Interval(first.low.relu(), first.high.relu(), torch.zeros_like(first.low))
    if isinstance(operation, MaxPool):
        low, high = operation.pool(first.low)[0], operation.pool(first.high)[0]
        return Interval(low, high, torch.zeros_like(low))
    if isinstance(operation, Cat):
        low = torch.cat([part.low for part in inputs], operation.dim)
        high = torch.cat([part.high for part in inputs], operation.dim)
        return Interval(low, high, torch.zeros_like(low))
    dtype = first.low.dtype
    if isinstance(operation, Sum):
        second = inputs[1]
        ends = (second.low, second.high) if operation.sign > 0 else (-second.high, -second.low)
        error = torch.zeros_like(first.low)
        if rounded:
            error = slack(2, dtype) * (first.magnitude() + second.magnitude())
            error = error + torch.finfo(dtype).tiny
        return Interval(first.low + ends[0] - error, first.high + ends[1] + error, error)
    if operation.terms == 0:
        low, high = operation.linear(first.low), operation.linear(first.high)
        return Interval(low, high, torch.zeros_like(low))
    centre = (first.low + first.high) / 2
    radius = torch.maximum(first.high - centre, centre - first.low)
    middle = operation.linear(centre)
    if operation.bias is not None:
        middle = middle + operation.bias
    if not rounded:
        reach = operation.magnitudes(radius)
        return Interval(middle - reach, middle + reach, torch.zeros_like(middle))
    radius = away(radius, upwards=True)
    reach = operation.magnitudes(radius)
    size = operation.magnitudes(centre.abs() + radius)
    if operation.bias_magnitude is not None:
        size = size + operation.bias_magnitude
    terms = operation.terms + operation.uses
    # Products below the smallest number may vanish altogether.
    error = slack(terms, dtype) * size + 4 * terms * torch.finfo(dtype).tiny
    return Interval(middle - reach - error, middle + reach + error, error)
