"""What modules and functions do, of those whose bounds are known."""

from __future__ import annotations

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
    unweighted,
)

SUPPORTED = (
    "Linear, Conv2d (zero padding), BatchNorm in eval mode, ReLU, average and max pooling, "
    "flatten, reshape, slices, permutations, sums, padding with zeros, Dropout in eval mode, "
    "addition, and scaling by constants"
)


@dataclass(frozen=True)
class Value:
    """What flows along an edge while the graph is read: a node, and an example of its values."""

    index: int
    example: Tensor


IN_PLACE = (
    Tensor.relu_, torch.relu_, operator.iadd, operator.isub, Tensor.add_, Tensor.sub_,
    operator.imul, Tensor.mul_, operator.itruediv, Tensor.div_, Tensor.clamp_, Tensor.clamp_min_,
)  # fmt: skip
_PLUS = (operator.add, operator.iadd, torch.add, Tensor.add, Tensor.add_)
MINUS = (operator.sub, operator.isub, torch.sub, Tensor.sub, Tensor.sub_)
_TIMES = (operator.mul, operator.imul, torch.mul, Tensor.mul, Tensor.mul_)
_OVER = (operator.truediv, operator.itruediv, torch.div, Tensor.div, Tensor.div_)
SUMS = (*_PLUS, *MINUS)
_RELUS = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
_CLAMPS = (
    torch.clamp, Tensor.clamp, Tensor.clamp_, torch.clamp_min, Tensor.clamp_min, Tensor.clamp_min_,
)  # fmt: skip
_REARRANGED = (
    torch.squeeze, Tensor.squeeze, torch.unsqueeze, Tensor.unsqueeze, torch.permute, Tensor.permute,
    torch.transpose, Tensor.transpose, Tensor.contiguous,
)  # fmt: skip
_ZERO_PADS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)
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


def of_module(module: nn.Module, x: Tensor) -> Operation | None:
    """What a module does, exact types only: a subclass may do anything."""
    kind = parametrize.type_before_parametrizations(module)
    made: Operation | None = None
    if isinstance(module, nn.Linear) and kind is nn.Linear:
        made = linear(module.weight, module.bias)
    elif isinstance(module, nn.Conv2d) and kind is nn.Conv2d and module.padding_mode == "zeros":
        made = convolution(
            module.weight,
            module.bias,
            stride=module.stride,
            padding=module.padding,
            dilation=module.dilation,
            groups=module.groups,
        )
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d) and not module.training:
        standard = kind in (nn.BatchNorm1d, nn.BatchNorm2d)
        if standard and module.running_mean is not None and module.running_var is not None:
            made = batch_norm(
                module.running_mean, module.running_var, module.weight, module.bias,
                module.eps, x.ndim,
            )  # fmt: skip
    elif kind is nn.ReLU:
        made = ReLU()
    elif kind in (nn.Identity, nn.Dropout, nn.Dropout2d) and not module.training:
        made = unweighted(same, 0)
    elif isinstance(module, _ZERO_PADS) and kind in _ZERO_PADS:
        made = unweighted(module, 0)
    elif kind is nn.Flatten:
        made = _reshaped(module, x)
    elif isinstance(module, nn.AvgPool2d) and kind is nn.AvgPool2d and not module.divisor_override:
        made = unweighted(module, _area(module.kernel_size))
    elif kind is nn.AdaptiveAvgPool2d:
        made = adaptive_mean(module, x)
    elif isinstance(module, nn.MaxPool2d) and kind is nn.MaxPool2d and not module.return_indices:
        made = _max_pool(
            module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode
        )
    return made


def of_function(function: Any, args: Any, kwargs: Any) -> Operation | None:
    """What a function of one value does; ``args`` has the value and constants."""
    names: tuple[str, ...]
    made: Operation | None = None
    if function in (*SUMS, *_TIMES, *_OVER):
        made = None if kwargs or len(args) != 2 else _with_constant(function, *args)
    elif not isinstance(args[0], Value):
        made = None
    elif function is operator.getitem and _of_every_image(args[1], args[0].example.ndim):
        made = unweighted(lambda x: x[args[1]], 0)
    elif function is F.pad and _with_zeros(args[2:], kwargs):
        made = unweighted(lambda x: F.pad(x, *args[1:], **kwargs), 0)
    elif function in _RELUS or (function in _CLAMPS and _at_zero(args[1:], kwargs)):
        made = ReLU()
    elif function in (operator.neg, torch.neg, Tensor.neg):
        made = _with_constant(operator.mul, args[0], -1)
    elif function in _REARRANGED:
        made = rearranged(lambda x: function(x, *args[1:], **kwargs), args[0].example)
    elif function is F.batch_norm:
        names = ("mean", "variance", "weight", "bias", "training", "momentum", "eps")
        made = _bound(partial(_batch_norm, args[0].example.ndim), names, args, _renamed(kwargs))
    elif function is F.linear:
        made = _bound(linear, ("weight", "bias"), args, kwargs)
    elif function in (torch.conv2d, F.conv2d):
        names = ("weight", "bias", "stride", "padding", "dilation", "groups")
        made = _bound(convolution, names, args, kwargs)
    elif function is F.avg_pool2d and len(args) < 7 and not kwargs.get("divisor_override"):
        kernel = kwargs.get("kernel_size", args[1] if len(args) > 1 else 1)
        made = unweighted(lambda x: F.avg_pool2d(x, *args[1:], **kwargs), _area(kernel))
    elif function is F.adaptive_avg_pool2d:
        made = adaptive_mean(
            lambda x: F.adaptive_avg_pool2d(x, *args[1:], **kwargs), args[0].example
        )
    elif function in (F.max_pool2d, torch.max_pool2d):
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
        made = _bound(_max_pool, names, args, kwargs)
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
    if make is linear or make is convolution:
        given.setdefault("bias", None)
    return make(**given)


def _with_constant(function: Any, a: Any, b: Any) -> Operation | None:
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


def _at_zero(args: Any, kwargs: Any) -> bool:
    """Whether a clamp, of which this follows the value, is at 0 from below and at nothing above."""
    least = kwargs.get("min", args[0] if args else None)
    most = kwargs.get("max", args[1] if len(args) > 1 else None)
    return isinstance(least, int | float) and least == 0 and most is None


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


def _max_pool(
    kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
    ceil_mode: bool = False, return_indices: bool = False,
) -> MaxPool | None:  # fmt: skip
    if return_indices:
        return None

    def pool(x: Tensor) -> tuple[Tensor, Tensor]:
        return F.max_pool2d(
            x, kernel_size, stride, padding, dilation, ceil_mode, return_indices=True
        )

    return MaxPool(pool)


def _area(kernel: int | tuple[int, ...]) -> int:
    return kernel**2 if isinstance(kernel, int) else kernel[0] * kernel[-1]
