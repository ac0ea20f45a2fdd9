"""A model as a list of operations whose bounds are known."""

from __future__ import annotations

import hashlib
import operator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from .operations import (
    Affine,
    Input,
    MaxPool,
    Operation,
    ReLU,
    Sum,
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


Kind = tuple[torch.Size, torch.dtype, torch.device]
"""Shape of one image, dtype and device."""


@dataclass(frozen=True)
class Node:
    """One operation: which nodes it takes, the shape of its values for one image, its name."""

    operation: Operation
    inputs: tuple[int, ...]
    shape: torch.Size
    name: str


@dataclass(frozen=True)
class Value:
    """What flows along an edge while the graph is read: a node, and an example of its values."""

    index: int
    example: Tensor


@dataclass(frozen=True)
class Traced:
    """A model with its graph, which bounds of the same model need not find again.

    Weights and statistics are the model's own, as they are when bounds are computed; layers, hooks,
    device and dtype must stay what they were.

    Attributes:
        model: The model itself.
        graph: The same model as torch.fx sees it.
        agreed: Images (shape, dtype, device) for which the two were found to compute the same.
    """

    model: nn.Module
    graph: fx.GraphModule
    agreed: set[Kind] = field(default_factory=set, repr=False, compare=False)


def trace(model: nn.Module) -> Traced:
    """The graph of ``model`` in its present mode, for bounds of many batches.

    Raises:
        TypeError: No module.
        ValueError: A model that torch.fx cannot trace, or that has hooks.

    Example:
        >>> from repsim_fast.verification import output_bounds, trace
        >>> traced = trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU()).eval())
        >>> low, high = output_bounds(traced, torch.rand(4, 2), 0.1)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a module, got {type(model).__name__}")
    if _hooked_everywhere():
        raise _unknown("hooks of all modules, as register_module_forward_hook makes them")
    for name, module in model.named_modules():
        # Which may change what goes in or comes out, and is none of what the graph shows.
        if module._forward_hooks or module._forward_pre_hooks:
            raise _unknown(f"the hooks of module {name!r} ({type(module).__name__})")
        if "forward" in vars(module):
            raise _unknown(f"the replaced forward of module {name!r} ({type(module).__name__})")
    try:
        return Traced(model, fx.symbolic_trace(model))
    except Exception as error:
        raise ValueError(
            f"model: expected one that torch.fx traces, without branches on values, got {error}"
        ) from error


def _hooked_everywhere() -> bool:
    hooks = nn.modules.module
    return bool(hooks._global_forward_hooks or hooks._global_forward_pre_hooks)


def read(traced: Traced, images: Tensor) -> list[Node]:
    """The operations of a model, in eval mode, for images of this shape; the last is its output.

    Raises:
        ValueError: Something whose bounds are unknown, named.
    """
    reader = _Reader(traced.graph)
    reader.run(images[:1].detach().clone())
    return reader.nodes


def fingerprint(traced: Traced) -> str:
    """A digest of what a model does: its graph, every setting of its layers, and every number of
    its weights, buffers and constants."""
    digest = hashlib.sha256(f"{traced.model}\n{traced.graph.code}".encode())
    # Of the traced module, which holds the constants of a forward, too.
    for name, module in traced.graph.named_modules():
        digest.update(f"{name} {_settings(module)}".encode())
    # Not of the state dict, which lacks buffers such as those of `models.normalized`.
    held = (*traced.graph.named_parameters(), *traced.graph.named_buffers())
    for name, value in held:
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return digest.hexdigest()[:32]


def _settings(module: nn.Module) -> dict[str, Any]:
    """What a layer was made with, of which its text lacks some, such as an average pooling's."""
    plain = (bool, int, float, str, tuple)
    return {
        name: value
        for name, value in sorted(vars(module).items())
        if name != "training" and not name.startswith("_") and isinstance(value, plain)
    }


class _Reader(fx.Interpreter):
    """Runs the graph on one image; each operation on a value adds a node."""

    def __init__(self, module: fx.GraphModule) -> None:
        super().__init__(module, garbage_collect_values=False)
        self.extra_traceback = False
        self.nodes: list[Node] = []

    def run_node(self, n: fx.Node) -> Any:
        self._current = n
        return super().run_node(n)

    def placeholder(self, target: Any, args: Any, kwargs: Any) -> Any:
        return self._add(Input(), (), super().placeholder(target, args, kwargs))

    def output(self, target: Any, args: Any, kwargs: Any) -> Any:
        (found,) = args
        if not isinstance(found, Value) or found.example.ndim != 2:
            raise ValueError("model must return logits, a tensor of shape (N, n_classes)")
        if found.index != len(self.nodes) - 1:
            self.nodes.append(
                Node(unweighted(_same, 0), (found.index,), found.example.shape[1:], "output")
            )
        return found

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        if not _holds_value((args, kwargs)):
            return super().call_module(target, args, kwargs)
        module = self.fetch_attr(target)
        made = _of_module(module, args[0].example) if args and not kwargs else None
        if made is None:
            raise _unknown(f"module {target!r} ({type(module).__name__}), or of its hooks or mode")
        self._check_in_place(bool(getattr(module, "inplace", False)))
        # Not by a call: there are no hooks, or some that came later and are not to see an example.
        return self._add(made, args[:1], module.forward(args[0].example.clone()))

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        if not _holds_value((args, kwargs)):
            return super().call_function(target, args, kwargs)
        return self._call(target, args, kwargs, f"function {target.__name__!r}")

    def call_method(self, target: Any, args: Any, kwargs: Any) -> Any:
        if not _holds_value((args, kwargs)):
            return super().call_method(target, args, kwargs)
        if target in ("size", "dim"):
            return getattr(args[0].example, target)(*args[1:], **kwargs)
        function = getattr(Tensor, str(target))
        return self._call(function, args, kwargs, f"method {target!r}")

    def _call(self, function: Any, args: Any, kwargs: Any, name: str) -> Any:
        if function is getattr:
            return self._attribute(*args)
        concrete, named = fx.node.map_aggregate((tuple(args), dict(kwargs)), _example)
        values = [a for a in args if isinstance(a, Value)]
        if len(values) == 2 and function in _SUMS and len(args) == 2 and not kwargs:
            if concrete[0].shape != concrete[1].shape:
                raise _unknown(f"{name} of values of two shapes")
            self._check_in_place(function in _IN_PLACE)
            sign = -1.0 if function in _MINUS else 1.0
            return self._add(Sum(sign), args, concrete[0] + sign * concrete[1])
        made = None
        if len(values) == 1 and not _holds_value(kwargs):
            made = _of_function(function, args, kwargs)
        if made is None:
            raise _unknown(name)
        in_place = bool(kwargs.get("inplace", False)) or function in _IN_PLACE
        self._check_in_place(in_place)
        return self._add(made, values, function(*concrete, **named))

    def _attribute(self, value: Value, attribute: str) -> Any:
        """What a value is (its shape, its dtype), or the value with its numbers rearranged.

        Another tensor would be the example's: a constant of one image.
        """
        if attribute in _TRANSPOSES:
            made = _rearranged(partial(_gotten, attribute), value.example)
            if made is not None:
                return self._add(made, (value,), getattr(value.example, attribute))
        elif attribute in _DESCRIPTIONS:
            return getattr(value.example, attribute)
        raise _unknown(f"attribute {attribute!r}")

    def _add(self, operation: Operation, inputs: Any, example: Tensor) -> Value:
        indices = tuple(value.index for value in inputs)
        if indices and example.shape[:1] != (1,):
            raise ValueError(f"model: {self._current.name!r} mixes images of a batch")
        self.nodes.append(Node(operation, indices, example.shape[1:], self._current.name))
        return Value(len(self.nodes) - 1, example)

    def _check_in_place(self, in_place: bool) -> None:
        """A value overwritten and used again elsewhere would be another than the graph says."""
        if not in_place:
            return
        views = {
            n.name for n in self.nodes if isinstance(n.operation, Affine) and not n.operation.terms
        }
        shared = list(self._current.all_input_nodes)[:1]  # what is overwritten stands first
        for value in shared:
            if value.name in views:  # whose memory is that of what they show
                shared += value.all_input_nodes
            if len(value.users) > 1:
                raise ValueError(
                    f"model: {self._current.name!r} overwrites {value.name!r}, which is used "
                    "elsewhere, too; use the form that is not in place"
                )


_IN_PLACE = (
    Tensor.relu_, torch.relu_, operator.iadd, operator.isub, Tensor.add_, Tensor.sub_,
    operator.imul, Tensor.mul_, operator.itruediv, Tensor.div_, Tensor.clamp_, Tensor.clamp_min_,
)  # fmt: skip
_PLUS = (operator.add, operator.iadd, torch.add, Tensor.add, Tensor.add_)
_MINUS = (operator.sub, operator.isub, torch.sub, Tensor.sub, Tensor.sub_)
_TIMES = (operator.mul, operator.imul, torch.mul, Tensor.mul, Tensor.mul_)
_OVER = (operator.truediv, operator.itruediv, torch.div, Tensor.div, Tensor.div_)
_SUMS = (*_PLUS, *_MINUS)
_RELUS = (F.relu, torch.relu, torch.relu_, Tensor.relu, Tensor.relu_)
_CLAMPS = (
    torch.clamp, Tensor.clamp, Tensor.clamp_, torch.clamp_min, Tensor.clamp_min, Tensor.clamp_min_,
)  # fmt: skip
_REARRANGED = (
    torch.squeeze, Tensor.squeeze, torch.unsqueeze, Tensor.unsqueeze, torch.permute, Tensor.permute,
    torch.transpose, Tensor.transpose, Tensor.contiguous,
)  # fmt: skip
_ZERO_PADS = (nn.ZeroPad1d, nn.ZeroPad2d, nn.ZeroPad3d)
_TRANSPOSES = ("mT", "mH")  # of real numbers the same
_DESCRIPTIONS = (
    "shape", "ndim", "dtype", "device", "layout", "itemsize", "is_cuda", "is_sparse",
    "is_quantized", "is_meta",
)  # fmt: skip


def _unknown(what: str) -> ValueError:
    return ValueError(f"model: no bounds are known of {what}; known are {SUPPORTED}")


def _same(x: Tensor) -> Tensor:
    return x


def _example(value: Any) -> Any:
    return value.example if isinstance(value, Value) else value


def _gotten(attribute: str, x: Tensor) -> Tensor:
    found: Tensor = getattr(x, attribute)
    return found


def _holds_value(tree: Any) -> bool:
    found: list[bool] = []
    fx.node.map_aggregate(tree, lambda leaf: found.append(isinstance(leaf, Value)))
    return any(found)


def _of_module(module: nn.Module, x: Tensor) -> Operation | None:
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
        made = unweighted(_same, 0)
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


def _of_function(function: Any, args: Any, kwargs: Any) -> Operation | None:
    """What a function of one value does; ``args`` has the value and constants."""
    names: tuple[str, ...]
    made: Operation | None = None
    if function in (*_SUMS, *_TIMES, *_OVER):
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
        made = _rearranged(lambda x: function(x, *args[1:], **kwargs), args[0].example)
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
        made = unweighted(_same, 0)
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
    if function in _MINUS:
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


def _rearranged(function: Any, x: Tensor) -> Affine | None:
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
