"""What modules and functions do, of those whose bounds are known."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from .operations import (
    Affine,
    MaxPool,
    Operation,
    ReLU,
    adaptive_mean,
    batch_norm,
    convolution,
    linear,
    reshape,
    scaling,
    transposed_convolution,
    unweighted,
)

SUPPORTED = (
    "Linear, products with constant matrices, convolutions (zero padding), also transposed, "
    "BatchNorm in eval mode, ReLU, LeakyReLU, PReLU, clamps such as ReLU6, average and max "
    "pooling, concatenation, chunks, flatten, reshape, slices, permutations, sums, padding with "
    "zeros, Dropout in eval mode, addition, and scaling by constants"
)


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

IN_PLACE = (
    Tensor.relu_, torch.relu_, operator.iadd, operator.isub, Tensor.add_, Tensor.sub_,
    operator.imul, Tensor.mul_, operator.itruediv, Tensor.div_, Tensor.clamp_, Tensor.clamp_min_,
    Tensor.clamp_max_,
)  # fmt: skip
_PLUS = (operator.add, operator.iadd, torch.add, Tensor.add, Tensor.add_)
MINUS = (operator.sub, operator.isub, torch.sub, Tensor.sub, Tensor.sub_)
_TIMES = (operator.mul, operator.imul, torch.mul, Tensor.mul, Tensor.mul_)
_OVER = (operator.truediv, operator.itruediv, torch.div, Tensor.div, Tensor.div_)
SUMS = (*_PLUS, *MINUS)
_RELUS = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
_LEAST_AND_MOST = (torch.clamp, Tensor.clamp, Tensor.clamp_, torch.clip, Tensor.clip)
_LEAST = (torch.clamp_min, Tensor.clamp_min, Tensor.clamp_min_)
_MOST = (torch.clamp_max, Tensor.clamp_max, Tensor.clamp_max_)
# What follows the value.
_CLAMPS = {
    **dict.fromkeys(_LEAST_AND_MOST, ("min", "max")),
    **dict.fromkeys(_LEAST, ("min",)),
    **dict.fromkeys(_MOST, ("max",)),
}
_REARRANGED = (
    torch.squeeze, Tensor.squeeze, torch.unsqueeze, Tensor.unsqueeze, torch.permute, Tensor.permute,
    torch.transpose, Tensor.transpose, Tensor.contiguous, torch.unflatten, Tensor.unflatten,
    torch.swapaxes, Tensor.swapaxes, torch.movedim, Tensor.movedim,
)  # fmt: skip
_ZERO_PADS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)
_UNCHANGING = (
    nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout,
    nn.FeatureAlphaDropout,
)  # fmt: skip
_SHUFFLES = (nn.Unflatten, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_OF_CONVOLUTIONS = ("stride", "padding", "dilation", "groups")
_CONVOLVING = (torch.conv1d, F.conv1d, torch.conv2d, F.conv2d, torch.conv3d, F.conv3d)
_CONVOLVING_BACK = (
    torch.conv_transpose1d, F.conv_transpose1d, torch.conv_transpose2d, F.conv_transpose2d,
    torch.conv_transpose3d, F.conv_transpose3d,
)  # fmt: skip
_MATRIX_PRODUCTS = (operator.matmul, torch.matmul, Tensor.matmul, torch.mm, Tensor.mm)
# Of poolings how many dimensions they are of.
_AVERAGE_POOLS = {nn.AvgPool1d: 1, nn.AvgPool2d: 2, nn.AvgPool3d: 3}
_ADAPTIVE_MEANS = {nn.AdaptiveAvgPool1d: 1, nn.AdaptiveAvgPool2d: 2, nn.AdaptiveAvgPool3d: 3}
_AVERAGING = {F.avg_pool1d: 1, F.avg_pool2d: 2, F.avg_pool3d: 3}
_AVERAGING_TO = {F.adaptive_avg_pool1d: 1, F.adaptive_avg_pool2d: 2, F.adaptive_avg_pool3d: 3}
MaxPooling = tuple[Any, int]
_MAX_POOLS: dict[Any, MaxPooling] = {
    nn.MaxPool1d: (F.max_pool1d, 1),
    nn.MaxPool2d: (F.max_pool2d, 2),
    nn.MaxPool3d: (F.max_pool3d, 3),
}
_ADAPTIVE_MAXIMA: dict[Any, MaxPooling] = {
    nn.AdaptiveMaxPool1d: (F.adaptive_max_pool1d, 1),
    nn.AdaptiveMaxPool2d: (F.adaptive_max_pool2d, 2),
    nn.AdaptiveMaxPool3d: (F.adaptive_max_pool3d, 3),
}
_MAX_POOLING: dict[Any, MaxPooling] = {
    **{pooling[0]: pooling for pooling in _MAX_POOLS.values()},
    torch.max_pool1d: (F.max_pool1d, 1),
    torch.max_pool2d: (F.max_pool2d, 2),
    torch.max_pool3d: (F.max_pool3d, 3),
}
_MAX_POOLING_TO = {pooling[0]: pooling for pooling in _ADAPTIVE_MAXIMA.values()}
CATS = (torch.cat, torch.concat, torch.concatenate)
PARTS = (
    torch.chunk, Tensor.chunk, torch.split, Tensor.split, torch.unbind, Tensor.unbind,
    torch.tensor_split, Tensor.tensor_split,
)  # fmt: skip
TRANSPOSES = ("mT", "mH")  # of real numbers the same
DESCRIPTIONS = (
    "shape", "ndim", "dtype", "device", "layout", "itemsize", "is_cuda", "is_sparse",
    "is_quantized", "is_meta",
)  # fmt: skip


def unknown(what: str) -> ValueError:
    """The error of something whose bounds are not known."""
    return ValueError(f"model: no bounds are known of {what}; known are {SUPPORTED}")


def same(x: Tensor) -> Tensor:
    """The value itself."""
    return x


def of_module(module: Any, x: Tensor) -> Known | None:
    """What a module does, exact types only: a subclass may do anything."""
    kind = parametrize.type_before_parametrizations(module)
    made: Known | None = None
    if kind is nn.Linear:
        made = linear(module.weight, module.bias)
    elif kind in _CONVOLUTIONS and module.padding_mode == "zeros":
        made = convolution(module.weight, module.bias, **_settings(module, _OF_CONVOLUTIONS))
    elif kind in _TRANSPOSED:
        how = _settings(module, (*_OF_CONVOLUTIONS, "output_padding"))
        made = transposed_convolution(module.weight, module.bias, **how)
    elif kind in _BATCH_NORMS and not module.training:
        if module.running_mean is not None and module.running_var is not None:
            made = batch_norm(
                module.running_mean, module.running_var, module.weight, module.bias,
                module.eps, x.ndim,
            )  # fmt: skip
    elif kind is nn.ReLU:
        made = ReLU()
    elif kind is nn.LeakyReLU:
        made = Leaky(module.negative_slope)
    elif kind is nn.PReLU:
        made = _prelu(x.ndim, module.weight)
    elif kind in (nn.Hardtanh, nn.ReLU6):
        made = Clamp(module.min_val, module.max_val)
    elif kind in _UNCHANGING and not module.training:
        made = unweighted(same, 0)
    elif kind in _ZERO_PADS:
        made = unweighted(module, 0)
    elif kind is nn.Flatten:
        made = _reshaped(module, x)
    elif kind in _SHUFFLES:
        made = rearranged(module, x)
    elif kind in _AVERAGE_POOLS and not getattr(module, "divisor_override", None):
        made = unweighted(module, _volume(module.kernel_size, _AVERAGE_POOLS[kind]))
    elif kind in _ADAPTIVE_MEANS:
        made = adaptive_mean(module, x, _ADAPTIVE_MEANS[kind])
    elif kind in _MAX_POOLS and not module.return_indices:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        made = _max_pool(_MAX_POOLS[kind], **_settings(module, names))
    elif kind in _ADAPTIVE_MAXIMA and not module.return_indices:
        made = _max_pool(_ADAPTIVE_MAXIMA[kind], output_size=module.output_size)
    return made


def _settings(module: nn.Module, names: tuple[str, ...]) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names}


def of_function(function: Any, args: Any, kwargs: Any) -> Known | None:
    """What a function of one value does; ``args`` has the value and constants."""
    names: tuple[str, ...]
    made: Known | None = None
    if function in (*SUMS, *_TIMES, *_OVER):
        made = None if kwargs or len(args) != 2 else with_constant(function, *args)
    elif not isinstance(args[0], Value):
        made = None
    elif function is operator.getitem and _of_every_image(args[1], args[0].example.ndim):
        made = unweighted(lambda x: x[args[1]], 0)
    elif function is F.pad and _with_zeros(args[2:], kwargs):
        made = unweighted(lambda x: F.pad(x, *args[1:], **kwargs), 0)
    elif function in _RELUS:
        made = ReLU()
    elif function in _CLAMPS:
        made = _bound(_clamp, _CLAMPS[function], args, kwargs)
    elif function is F.relu6:
        made = Clamp(0.0, 6.0)
    elif function is F.leaky_relu:
        made = _bound(_leaky, ("negative_slope",), args, kwargs)
    elif function in (F.prelu, torch.prelu):
        made = _bound(partial(_prelu, args[0].example.ndim), ("weight",), args, kwargs)
    elif function in (operator.neg, torch.neg, Tensor.neg):
        made = with_constant(operator.mul, args[0], -1)
    elif function in _REARRANGED:
        made = rearranged(lambda x: function(x, *args[1:], **kwargs), args[0].example)
    elif function is F.batch_norm:
        names = ("mean", "variance", "weight", "bias", "training", "momentum", "eps")
        made = _bound(partial(_batch_norm, args[0].example.ndim), names, args, _renamed(kwargs))
    elif function is F.linear:
        made = _bound(linear, ("weight", "bias"), args, kwargs)
    elif function in _MATRIX_PRODUCTS:
        made = _bound(_times_matrix, ("matrix",), args, kwargs)
    elif function in _CONVOLVING:
        names = ("weight", "bias", *_OF_CONVOLUTIONS)
        made = _bound(convolution, names, args, kwargs)
    elif function in _CONVOLVING_BACK:
        names = ("weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
        made = _bound(transposed_convolution, names, args, kwargs)
    elif function in _AVERAGING and len(args) < 7 and not kwargs.get("divisor_override"):
        kernel = kwargs.get("kernel_size", args[1] if len(args) > 1 else 1)
        terms = _volume(kernel, _AVERAGING[function])
        made = unweighted(lambda x: function(x, *args[1:], **kwargs), terms)
    elif function in _AVERAGING_TO:
        pool = lambda x: function(x, *args[1:], **kwargs)  # noqa: E731
        made = adaptive_mean(pool, args[0].example, _AVERAGING_TO[function])
    elif function in _MAX_POOLING:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        made = _bound(partial(_max_pool, _MAX_POOLING[function]), names, args, kwargs)
    elif function in _MAX_POOLING_TO:
        names = ("output_size", "return_indices")
        made = _bound(partial(_max_pool, _MAX_POOLING_TO[function]), names, args, kwargs)
    elif function in (torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape):
        made = _reshaped(lambda x: function(x, *args[1:], **kwargs), args[0].example)
    elif function in (Tensor.mean, torch.mean, Tensor.sum, torch.sum):
        if not _over_batch(args, kwargs):
            terms = args[0].example[0].numel()
            made = unweighted(lambda x: function(x, *args[1:], **kwargs), terms)
    elif function in (F.dropout, F.dropout2d) and not _bound(
        lambda p=0.5, training=True: training, ("p", "training"), args, kwargs
    ):
        made = unweighted(same, 0)
    return made


def _bound(make: Any, names: tuple[str, ...], args: Any, kwargs: Any) -> Any:
    """``make`` with a function's arguments after the value; None where it has others."""
    given = {**dict(zip(names, args[1:], strict=False)), **kwargs}
    given.pop("inplace", None)
    if len(args) - 1 > len(names) or not set(given) <= set(names):
        return None
    if make in (linear, convolution, transposed_convolution):
        given.setdefault("bias", None)
    return make(**given)


def with_constant(function: Any, a: Any, b: Any) -> Affine | None:
    """A value plus, minus, times or over a constant that is the same for every image."""
    first = isinstance(a, Value)
    value, constant = (a, b) if first else (b, a)
    like = value.example
    if isinstance(constant, Tensor):
        if constant.ndim > like.ndim or (constant.ndim == like.ndim and len(constant) != 1):
            return None
        constant = constant.to(like)
    elif isinstance(constant, int | float):
        constant = torch.tensor(constant, dtype=like.dtype, device=like.device)
    else:
        return None
    # A value may be repeated along a dimension, and its like is of one image.
    shape = (like + constant).shape
    n = shape.numel() // like.numel()
    one = torch.ones(shape[1:] if n > 1 else (), dtype=like.dtype, device=like.device)
    if function in _PLUS:
        return scaling(one, constant, uses=n)
    if function in MINUS:
        return scaling(one, -constant, uses=n) if first else scaling(-one, constant, uses=n)
    if function in _TIMES:
        return scaling(constant, None, uses=n)
    return scaling(1 / constant, None, uses=n) if first else None


def _of_every_image(index: Any, ndim: int) -> bool:
    """Whether an index takes the same places of each image, of values of ``ndim`` dimensions."""
    places = index if isinstance(index, tuple) else (index,)
    taken = [place for place in places if isinstance(place, slice | int)]
    if len(taken) + sum(place is None or place is ... for place in places) < len(places):
        return False
    if places[:1] == (...,):
        return len(taken) < ndim
    return places[:1] == (slice(None),)


def _clamp(min: Any = None, max: Any = None) -> Clamp | None:
    known = all(end is None or isinstance(end, int | float) for end in (min, max))
    return Clamp(min, max) if known else None


def _leaky(negative_slope: Any = 0.01) -> Leaky:
    return Leaky(negative_slope)


def _prelu(ndim: int, weight: Tensor) -> Leaky:
    return Leaky(weight.view(-1, *[1] * (ndim - 2)))


def _times_matrix(matrix: Any) -> Affine | None:
    return linear(matrix.mT, None) if isinstance(matrix, Tensor) and matrix.ndim == 2 else None


def rearranged(function: Any, x: Tensor) -> Affine | None:
    """The same numbers of each image in another order or shape; None where images are mixed."""
    pair = (x, x + 1)
    found = function(torch.cat(pair))
    alone = [function(one) for one in pair]
    apart = len(found) == 2 and all(map(torch.equal, found.split(1), alone))
    return unweighted(function, 0) if apart else None


def _batch_norm(
    ndim: int, mean: Any = None, variance: Any = None, weight: Any = None, bias: Any = None,
    training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Affine | None:  # fmt: skip
    if training or mean is None or variance is None:
        return None
    return batch_norm(mean, variance, weight, bias, eps, ndim)


def _renamed(kwargs: Any) -> dict[str, Any]:
    names = {"running_mean": "mean", "running_var": "variance"}
    return {names.get(name, name): value for name, value in kwargs.items()}


def _with_zeros(args: Any, kwargs: Any) -> bool:
    """Whether a padding, of which this follows the image and the widths, is one with zeros."""
    named = {**dict(zip(("mode", "value"), args, strict=False)), **kwargs}
    return named.get("mode", "constant") == "constant" and not named.get("value")


def _over_batch(args: Any, kwargs: Any) -> bool:
    """Whether a mean is, or may be, taken over the images as well."""
    dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
    if dims is None:
        return True
    ndim = args[0].example.ndim
    return any(d % ndim == 0 for d in ((dims,) if isinstance(dims, int) else dims))


def _reshaped(function: Any, x: Tensor) -> Affine:
    """The same numbers in another shape, whatever the number of samples."""
    shape = function(x).shape
    if shape[:1] != (1,):
        raise ValueError(f"model: a reshape to {tuple(shape)} mixes images of a batch")
    return reshape(shape[1:])


def _max_pool(pooling: MaxPooling, return_indices: bool = False, **how: Any) -> MaxPool | None:
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


def _sides(value: int | tuple[int, ...], dims: int) -> tuple[int, ...]:
    """One number for each dimension, which may be given once for all."""
    sides = (value,) if isinstance(value, int) else tuple(value)
    return sides * dims if len(sides) == 1 else sides


def _volume(kernel: int | tuple[int, ...], dims: int) -> int:
    """Places of a window."""
    return math.prod(_sides(kernel, dims))
