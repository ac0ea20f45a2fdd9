"""What modules and functions are read as, and what is the same of both."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from .operations import Affine, MaxPool, Operation, reshape, unweighted

SUPPORTED = (
    "Linear, products with constant matrices, convolutions (zero padding), also transposed, "
    "BatchNorm in eval mode, ReLU, LeakyReLU, PReLU, clamps such as ReLU6, average and max "
    "pooling, concatenation, chunks, flatten, reshape, slices, permutations, sums, padding with "
    "zeros, Dropout in eval mode, addition, and scaling by constants"
)

# Settings of a convolution after weight and bias.
OF_CONVOLUTIONS = ("stride", "padding", "dilation", "groups")

MaxPooling = tuple[Any, int]
"""A function of max pooling that may return places, and how many dimensions it is of."""


@dataclass(frozen=True)
class Value:
    """What flows along an edge while the graph is read: a node, and an example of its values."""

    index: int
    example: Tensor


@dataclass(frozen=True)
class Leaky:
    """The larger of x and 0, and ``slope`` times the smaller: a ReLU and a line."""

    slope: float | Tensor


@dataclass(frozen=True)
class Clamp:
    """At least ``low`` and at most ``high``, None for no limit: a ReLU for each."""

    low: float | None
    high: float | None


Known = Operation | Leaky | Clamp


def unknown(what: str) -> ValueError:
    """The error of something whose bounds are not known."""
    return ValueError(f"model: no bounds are known of {what}; known are {SUPPORTED}")


def same(x: Tensor) -> Tensor:
    """The value itself."""
    return x


def rearranged(function: Any, x: Tensor) -> Affine | None:
    """The same numbers of each image in another order or shape; None where images are mixed."""
    pair = (x, x + 1)
    found = function(torch.cat(pair))
    alone = [function(one) for one in pair]
    apart = len(found) == 2 and all(map(torch.equal, found.split(1), alone))
    return unweighted(function, 0) if apart else None


def reshaped(function: Any, x: Tensor) -> Affine:
    """The same numbers in another shape, whatever the number of samples."""
    shape = function(x).shape
    if shape[:1] != (1,):
        raise ValueError(f"model: a reshape to {tuple(shape)} mixes images of a batch")
    return reshape(shape[1:])


def prelu(ndim: int, weight: Tensor) -> Leaky:
    """One slope, or one a channel, of a value of ``ndim`` dimensions."""
    return Leaky(weight.view(-1, *[1] * (ndim - 2)))


def max_pool(pooling: MaxPooling, return_indices: bool = False, **how: Any) -> MaxPool | None:
    """Max pooling with its settings; None where it returns places, too."""
    if return_indices:
        return None
    function, dims = pooling
    return MaxPool(lambda x: function(x, **how, return_indices=True), dims, _apart(dims, **how))


def _apart(
    dims: int, kernel_size: Any = None, stride: Any = None, dilation: Any = 1, **_: Any
) -> bool:
    """Whether windows of max pooling do not overlap; of an adaptive one that is not known."""
    if kernel_size is None:
        return False
    kernel, steps, gaps = (_sides(x, dims) for x in (kernel_size, stride or kernel_size, dilation))
    return all((k - 1) * d < s for k, s, d in zip(kernel, steps, gaps, strict=True))


def volume(kernel: int | tuple[int, ...], dims: int) -> int:
    """Places of a window."""
    return math.prod(_sides(kernel, dims))


def _sides(value: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    """One number for each dimension, which may be given once for all."""
    sides = (value,) if isinstance(value, int) else tuple(value)
    return sides * dims if len(sides) == 1 else sides
