"""What functions do, of those whose bounds are known."""

from __future__ import annotations

import operator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .known import (
    OF_CONVOLUTIONS,
    Clamp,
    Known,
    Leaky,
    MaxPooling,
    Value,
    max_pool,
    prelu,
    rearranged,
    reshaped,
    same,
    volume,
)
from .operations import (
    Affine,
    ReLU,
    adaptive_mean,
    batch_norm,
    convolution,
    linear,
    scaling,
    transposed_convolution,
    unweighted,
)

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
_CONVOLVING = (torch.conv1d, F.conv1d, torch.conv2d, F.conv2d, torch.conv3d, F.conv3d)
_CONVOLVING_BACK = (
    torch.conv_transpose1d, F.conv_transpose1d, torch.conv_transpose2d, F.conv_transpose2d,
    torch.conv_transpose3d, F.conv_transpose3d,
)  # fmt: skip
_MATRIX_PRODUCTS = (operator.matmul, torch.matmul, Tensor.matmul, torch.mm, Tensor.mm)
_AVERAGING = {F.avg_pool1d: 1, F.avg_pool2d: 2, F.avg_pool3d: 3}
_AVERAGING_TO = {F.adaptive_avg_pool1d: 1, F.adaptive_avg_pool2d: 2, F.adaptive_avg_pool3d: 3}
_MAX_POOLING: dict[Any, MaxPooling] = {
    **dict.fromkeys((F.max_pool1d, torch.max_pool1d), (F.max_pool1d, 1)),
    **dict.fromkeys((F.max_pool2d, torch.max_pool2d), (F.max_pool2d, 2)),
    **dict.fromkeys((F.max_pool3d, torch.max_pool3d), (F.max_pool3d, 3)),
}
_MAX_POOLING_TO: dict[Any, MaxPooling] = {
    F.adaptive_max_pool1d: (F.adaptive_max_pool1d, 1),
    F.adaptive_max_pool2d: (F.adaptive_max_pool2d, 2),
    F.adaptive_max_pool3d: (F.adaptive_max_pool3d, 3),
}
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
        made = _bound(partial(prelu, args[0].example.ndim), ("weight",), args, kwargs)
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
        names = ("weight", "bias", *OF_CONVOLUTIONS)
        made = _bound(convolution, names, args, kwargs)
    elif function in _CONVOLVING_BACK:
        names = ("weight", "bias", "stride", "padding", "output_padding", "groups", "dilation")
        made = _bound(transposed_convolution, names, args, kwargs)
    elif function in _AVERAGING and len(args) < 7 and not kwargs.get("divisor_override"):
        kernel = kwargs.get("kernel_size", args[1] if len(args) > 1 else 1)
        terms = volume(kernel, _AVERAGING[function])
        made = unweighted(lambda x: function(x, *args[1:], **kwargs), terms)
    elif function in _AVERAGING_TO:
        pool = lambda x: function(x, *args[1:], **kwargs)  # noqa: E731
        made = adaptive_mean(pool, args[0].example, _AVERAGING_TO[function])
    elif function in _MAX_POOLING:
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        made = _bound(partial(max_pool, _MAX_POOLING[function]), names, args, kwargs)
    elif function in _MAX_POOLING_TO:
        names = ("output_size", "return_indices")
        made = _bound(partial(max_pool, _MAX_POOLING_TO[function]), names, args, kwargs)
    elif function in (torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape):
        made = reshaped(lambda x: function(x, *args[1:], **kwargs), args[0].example)
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


def _times_matrix(matrix: Any) -> Affine | None:
    return linear(matrix.mT, None) if isinstance(matrix, Tensor) and matrix.ndim == 2 else None


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
