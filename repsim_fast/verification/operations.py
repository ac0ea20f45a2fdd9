"""What a network's graph is made of, as far as bounds are concerned: four kinds of operation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """

    linear: Callable[[Tensor], Tensor]
    magnitudes: Callable[[Tensor], Tensor]
    terms: int
    uses: int
    bias: Tensor | None = None
    bias_magnitude: Tensor | None = None

    def transposed(self, y: Tensor, shape: torch.Size) -> Tensor:
        """W^T y for ``y`` (N, *out) where inputs have ``shape``; differentiable."""
        like = torch.zeros(len(y), *shape, dtype=y.dtype, device=y.device)
        pullback = torch.func.vjp(self.linear, like)[1]
        (found,) = pullback(y)
        return found  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Sum:
    """Two values added, or their difference."""

    sign: float = 1.0


@dataclass(frozen=True)
class ReLU:
    """The larger of x and 0."""


@dataclass(frozen=True)
class MaxPool:
    """The largest of each window; ``pool`` gives values and their places in a channel's plane."""

    pool: Callable[[Tensor], tuple[Tensor, Tensor]]


Operation = Input | Affine | Sum | ReLU | MaxPool


def linear(weight: Tensor, bias: Tensor | None) -> Affine:
    """A fully connected layer."""
    return Affine(
        lambda x: F.linear(x, weight),
        lambda x: F.linear(x, weight.abs()),
        terms=weight.shape[1],
        uses=weight.shape[0],
        bias=bias,
        bias_magnitude=None if bias is None else bias.abs(),
    )


def convolution(weight: Tensor, bias: Tensor | None, **how: Any) -> Affine:
    """A convolution of images with zero padding."""
    shift = None if bias is None else bias[:, None, None]
    return Affine(
        lambda x: F.conv2d(x, weight, **how),
        lambda x: F.conv2d(x, weight.abs(), **how),
        terms=weight[0].numel(),
        uses=weight[:, 0].numel(),
        bias=shift,
        bias_magnitude=None if shift is None else shift.abs(),
    )


def scaling(scale: Tensor, shift: Tensor | None, rounded: Tensor | None = None) -> Affine:
    """Elementwise scale * x + shift; ``rounded`` where adding rounds more than |shift|."""
    return Affine(
        lambda x: x * scale,
        lambda x: x * scale.abs(),
        terms=1,
        uses=1,
        bias=shift,
        bias_magnitude=shift.abs() if rounded is None and shift is not None else rounded,
    )


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


def unweighted(function: Callable[[Tensor], Tensor], terms: int) -> Affine:
    """A linear map without negative weights: a mean over places, a reshape (0 terms)."""
    return Affine(function, function, terms=terms, uses=terms)
