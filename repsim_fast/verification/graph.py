"""A model as a list of operations whose bounds are known."""

from __future__ import annotations

import hashlib
import operator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor, fx, nn

from .known import Clamp, Known, Leaky, Value, rearranged, same, unknown
from .known_functions import (
    CATS,
    DESCRIPTIONS,
    IN_PLACE,
    MINUS,
    PARTS,
    SUMS,
    TRANSPOSES,
    of_function,
    with_constant,
)
from .known_modules import of_module
from .operations import Affine, Cat, Input, Operation, ReLU, Sum, unweighted

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
        ValueError: A model that torch.fx cannot trace, that has hooks, or weights without values.

    Example:
        >>> from repsim_fast.verification import output_bounds, trace
        >>> traced = trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU()).eval())
        >>> low, high = output_bounds(traced, torch.rand(4, 2), 0.1)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a module, got {type(model).__name__}")
    if empty := [name for name, tensor in model.named_parameters() if tensor.is_meta]:
        raise ValueError(
            f"model: {empty[0]!r} is on the meta device, without values: load them first"
        )
    if _hooked_everywhere():
        raise unknown("hooks of all modules, as register_module_forward_hook makes them")
    for name, module in model.named_modules():
        # Which may change what goes in or comes out, and is none of what the graph shows.
        if module._forward_hooks or module._forward_pre_hooks:
            raise unknown(f"the hooks of module {name!r} ({type(module).__name__})")
        if "forward" in vars(module):
            raise unknown(f"the replaced forward of module {name!r} ({type(module).__name__})")
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
                Node(unweighted(same, 0), (found.index,), found.example.shape[1:], "output")
            )
        return found

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        if not _holds_value((args, kwargs)):
            return super().call_module(target, args, kwargs)
        module = self.fetch_attr(target)
        made = of_module(module, args[0].example) if args and not kwargs else None
        if made is None:
            raise unknown(f"module {target!r} ({type(module).__name__}), or of its hooks or mode")
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
        if function is operator.getitem and isinstance(args[0], tuple):  # of a value's parts
            part = args[0][args[1]]
            return self._add(unweighted(same, 0), (part,), part.example)
        if function in CATS:
            return self._cat(*args, **kwargs)
        concrete, named = fx.node.map_aggregate((tuple(args), dict(kwargs)), _example)
        if function in PARTS and isinstance(args[0], Value):
            return self._parts(lambda x: function(x, *args[1:], **kwargs), args[0], name)
        values = [a for a in args if isinstance(a, Value)]
        if len(values) == 2 and function in SUMS and len(args) == 2 and not kwargs:
            if concrete[0].shape != concrete[1].shape:
                raise unknown(f"{name} of values of two shapes")
            self._check_in_place(function in IN_PLACE)
            sign = -1.0 if function in MINUS else 1.0
            return self._add(Sum(sign), args, concrete[0] + sign * concrete[1])
        made = None
        if len(values) == 1 and not _holds_value(kwargs):
            made = of_function(function, args, kwargs)
        if made is None:
            raise unknown(name)
        in_place = bool(kwargs.get("inplace", False)) or function in IN_PLACE
        self._check_in_place(in_place)
        return self._add(made, values, function(*concrete, **named))

    def _cat(self, tensors: Any, dim: Any = 0) -> Value:
        examples = [value.example for value in tensors if isinstance(value, Value)]
        if len(examples) < len(tensors) or not isinstance(dim, int):
            raise unknown("a concatenation with constants")
        sizes = tuple(example.shape[dim] for example in examples)
        return self._add(Cat(dim % examples[0].ndim, sizes), tensors, torch.cat(examples, dim))

    def _parts(self, function: Any, value: Value, name: str) -> tuple[Value, ...]:
        """The pieces that a value is cut into."""
        found: list[Value] = []
        for number, part in enumerate(function(value.example)):
            made = rearranged(lambda x, n=number: function(x)[n], value.example)
            if made is None:
                raise unknown(name)
            found.append(self._add(made, (value,), part))
        return tuple(found)

    def _attribute(self, value: Value, attribute: str) -> Any:
        """What a value is (its shape, its dtype), or the value with its numbers rearranged.

        Another tensor would be the example's: a constant of one image.
        """
        if attribute in TRANSPOSES:
            made = rearranged(partial(_gotten, attribute), value.example)
            if made is not None:
                return self._add(made, (value,), getattr(value.example, attribute))
        elif attribute in DESCRIPTIONS:
            return getattr(value.example, attribute)
        raise unknown(f"attribute {attribute!r}")

    def _add(self, operation: Known, inputs: Any, example: Tensor) -> Value:
        if isinstance(operation, Leaky):
            return self._leaky(operation.slope, *inputs)
        if isinstance(operation, Clamp):
            return self._clamped(operation, *inputs)
        indices = tuple(value.index for value in inputs)
        if indices and example.shape[:1] != (1,):
            raise ValueError(f"model: {self._current.name!r} mixes images of a batch")
        self.nodes.append(Node(operation, indices, example.shape[1:], self._current.name))
        return Value(len(self.nodes) - 1, example)

    def _leaky(self, slope: float | Tensor, x: Value) -> Value:
        """Slope times x and the rest of a ReLU, both of which rise where the slope is in [0, 1]."""
        bent = self._add(ReLU(), (x,), x.example)
        parts = [self._constant(operator.mul, *of) for of in ((x, slope), (bent, 1 - slope))]
        return self._add(Sum(), parts, x.example)

    def _clamped(self, limits: Clamp, x: Value) -> Value:
        """At least low is low + ReLU(x - low), at most high is high - ReLU(high - x)."""
        if limits.low == 0:
            x = self._add(ReLU(), (x,), x.example)
        elif limits.low is not None:
            above = self._constant(operator.sub, x, limits.low)
            x = self._constant(operator.add, self._add(ReLU(), (above,), x.example), limits.low)
        if limits.high is not None:
            below = self._constant(operator.sub, limits.high, x)
            x = self._constant(operator.sub, limits.high, self._add(ReLU(), (below,), x.example))
        return x

    def _constant(self, function: Any, a: Any, b: Any) -> Value:
        value: Value = a if isinstance(a, Value) else b
        made = with_constant(function, a, b)
        if made is None:
            raise unknown(f"{self._current.name!r}")
        return self._add(made, (value,), value.example)

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


def _example(value: Any) -> Any:
    return value.example if isinstance(value, Value) else value


def _gotten(attribute: str, x: Tensor) -> Tensor:
    found: Tensor = getattr(x, attribute)
    return found


def _holds_value(tree: Any) -> bool:
    found: list[bool] = []
    fx.node.map_aggregate(tree, lambda leaf: found.append(isinstance(leaf, Value)))
    return any(found)
