"""What a network's graph is made of, as far as bounds are concerned: five kinds of operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

Place = tuple[int, int]
"""Row and column in a channel's plane."""


@dataclass(frozen=True)
class Input:
    """The images."""


@dataclass(frozen=True)
class Affine:
    """y = W x + b of one value x.

    Attributes:
        linear: x -> W x for any number of samples.
        magnitudes: x -> |W| x.
        bias: b, broadcast over samples; None for 0.
        bias_magnitude: At least what is rounded in adding ``bias``.
        terms: Products in a sum of W x; 0 where nothing is computed.
        uses: Outputs that one input takes part in.
        pullback: (y, shape of x for all samples) -> W^T y, where autograd's would compute more.
        windowed: (a window of y, its origin) -> the part of W^T y that can differ from 0, and its
            origin, either of which may lie beyond the edges; for values in planes.
    """

    linear: Callable[[Tensor], Tensor]
    magnitudes: Callable[[Tensor], Tensor]
    terms: int
    uses: int
    bias: Tensor | None = None
    bias_magnitude: Tensor | None = None
    pullback: Callable[[Tensor, tuple[int, ...]], Tensor] | None = None
    windowed: Callable[[Tensor, Place], tuple[Tensor, Place]] | None = None

    def transposed(self, y: Tensor, shape: torch.Size) -> Tensor:
        """W^T y for ``y`` (N, *out) where inputs have ``shape``; differentiable."""
        if self.pullback is not None:
            return self.pullback(y, (len(y), *shape))
        like = torch.zeros(len(y), *shape, dtype=y.dtype, device=y.device)
        pullback = torch.func.vjp(self.linear, like)[1]
        (found,) = pullback(y)
        return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Sum:
    """Two values added, or their difference."""

    sign: float = 1.0


@dataclass(frozen=True)
class Cat:
    """Values side by side along a dimension of (N, ...), each with as many places as ``sizes``."""

    dim: int
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class ReLU:
    """The larger of x and 0."""


@dataclass(frozen=True)
class MaxPool:
    """The largest of each window.

    Attributes:
        pool: Gives values and their places in the last ``dims``.
        dims: How many dimensions windows have.
        apart: Whether no place is in two windows.
    """

    pool: Callable[[Tensor], tuple[Tensor, Tensor]]
    dims: int
    apart: bool


Operation = Input | Affine | Sum | Cat | ReLU | MaxPool

_CONVOLUTIONS = {3: F.conv1d, 4: F.conv2d, 5: F.conv3d}
_TRANSPOSED = {3: F.conv_transpose1d, 4: F.conv_transpose2d, 5: F.conv_transpose3d}


def linear(weight: Tensor, bias: Tensor | None) -> Affine:
    """A fully connected layer."""
    return Affine(
        lambda x: F.linear(x, weight),
        lambda x: F.linear(x, weight.abs()),
        terms=weight.shape[1],
        uses=weight.shape[0],
        bias=bias,
        bias_magnitude=None if bias is None else bias.abs(),
        pullback=lambda y, shape: y @ weight,
    )


def convolution(weight: Tensor, bias: Tensor | None, **how: Any) -> Affine:
    """A convolution of one, two or three dimensions with zero padding."""
    convolve = _CONVOLUTIONS[weight.ndim]
    shift = None if bias is None else _of_channels(bias, weight)
    return Affine(
        lambda x: convolve(x, weight, **how),
        lambda x: convolve(x, weight.abs(), **how),
        terms=weight[0].numel(),
        uses=weight[:, 0].numel(),
        bias=shift,
        bias_magnitude=None if shift is None else shift.abs(),
        windowed=_windowed(weight, **how) if weight.ndim == 4 else None,
    )


def _windowed(weight: Tensor, **how: Any) -> Callable[[Tensor, Place], tuple[Tensor, Place]]:
    """What ``Affine`` has of a convolution of planes."""
    stride, dilation = (_pair(how.get(name, 1)) for name in ("stride", "dilation"))
    padding = how.get("padding", 0)
    if isinstance(padding, str):
        spans = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        before = (0, 0) if padding == "valid" else (spans[0] // 2, spans[1] // 2)
    else:
        before = _pair(padding)

    def windowed(y: Tensor, origin: Place) -> tuple[Tensor, Place]:
        x = F.conv_transpose2d(
            y, weight, stride=stride, dilation=dilation, groups=how.get("groups", 1)
        )
        first, second = (o * s - p for o, s, p in zip(origin, stride, before, strict=True))
        return x, (first, second)

    return windowed


def transposed_convolution(weight: Tensor, bias: Tensor | None, **how: Any) -> Affine:
    """A transposed convolution of one, two or three dimensions."""
    convolve = _TRANSPOSED[weight.ndim]
    shift = None if bias is None else _of_channels(bias, weight)
    return Affine(
        lambda x: convolve(x, weight, **how),
        lambda x: convolve(x, weight.abs(), **how),
        terms=weight[:, 0].numel(),
        uses=weight[0].numel(),
        bias=shift,
        bias_magnitude=None if shift is None else shift.abs(),
    )


def _of_channels(bias: Tensor, weight: Tensor) -> Tensor:
    return bias.view(-1, *[1] * (weight.ndim - 2))


def scaling(
    scale: Tensor, shift: Tensor | None, rounded: Tensor | None = None, uses: int = 1
) -> Affine:
    """Elementwise scale * x + shift; ``rounded`` where adding rounds more than |shift|.

    ``uses`` is more than 1 where a value is repeated along dimensions of the constants.
    """

    def windowed(y: Tensor, origin: Place) -> tuple[Tensor, Place]:
        return y * window(scale, origin, y.shape), origin

    return Affine(
        lambda x: x * scale,
        lambda x: x * scale.abs(),
        terms=1,
        uses=uses,
        bias=shift,
        bias_magnitude=shift.abs() if rounded is None and shift is not None else rounded,
        pullback=lambda y, shape: (y * scale).sum_to_size(shape),
        windowed=windowed if uses == 1 else None,
    )


def window(values: Tensor, origin: Place, shape: tuple[int, ...]) -> Tensor:
    """The window of ``values`` that rows of ``shape`` are about; what is one for all stays so."""
    for d in (1, 2):
        if values.ndim >= d and values.shape[-d] > 1:
            values = values.narrow(-d, origin[-d], shape[-d])
    return values


def batch_norm(
    mean: Tensor,
    variance: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    ndim: int,
) -> Affine:
    """Batch norm with its running statistics, on values of ``ndim`` dimensions."""
    scale = torch.rsqrt(variance + eps)
    scale = scale if weight is None else scale * weight
    shift = -mean * scale if bias is None else bias - mean * scale
    # x - mean and bias - mean * scale are both in use, and round as much as this.
    rounded = (mean * scale).abs() * 2 + shift.abs()
    shape = (-1, *[1] * (ndim - 2))
    return scaling(scale.view(shape), shift.view(shape), rounded.view(shape))


def unweighted(function: Callable[[Tensor], Tensor], terms: int, uses: int = 0) -> Affine:
    """A linear map without negative weights: a mean over places, a slice (0 terms).

    ``uses`` where one input may take part in more outputs than an output has terms.
    """
    return Affine(function, function, terms=terms, uses=max(terms, uses))


def adaptive_mean(function: Callable[[Tensor], Tensor], x: Tensor, dims: int) -> Affine:
    """Adaptive average pooling of the last ``dims`` of ``x``, of which one place may fill many."""
    return unweighted(function, x.shape[-dims:].numel(), function(x).shape[-dims:].numel())


def reshape(shape: torch.Size) -> Affine:
    """The same numbers of each sample in another shape."""

    def reshaped(x: Tensor) -> Tensor:
        return x.reshape(len(x), *shape)

    return Affine(reshaped, reshaped, terms=0, uses=0, pullback=lambda y, whole: y.reshape(whole))


def _pair(value: int | tuple[int, ...]) -> Place:
    return (value, value) if isinstance(value, int) else (value[0], value[-1])
