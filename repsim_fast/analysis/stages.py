"""The stage of a network that made what a layer shows, found from the network as it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.buffers import buffers_kept
from repsim_fast._core.model_state import in_mode
from repsim_fast._core.nested import map_tensors
from repsim_fast.capture.kinds import CONTAINERS, layer_kind, parts

from .grids import HEAD, STEM

__all__ = ["making_stages"]

# What these return is what they read in another form, not something that they made.
_PASSING = ("norm", "activation")
_PASSING_TYPES = (
    nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d,
    nn.AlphaDropout, nn.FeatureAlphaDropout,
)  # fmt: skip


def making_stages(
    model: nn.Module, inputs: Any, layers: Sequence[str], *, stages: Sequence[str] | None = None
) -> tuple[str, ...]:
    """Stage that made the tensor which each layer shows: "stem", "stage1", ..., "head".

    The first norm and ReLU of a pre-activation block read what the stage before made, and show it.
    So a norm, an activation or a dropout belongs to the stage of the tensor that it reads, and any
    other layer to the stage that runs when it is called; sums and other steps that are no modules
    count as made by what runs. Layers that run before the first stage are the stem, after the last
    the head. The model is run once, and comes back as it was.

    Args:
        model: The network.
        inputs: What it is called with: a tensor, or a tuple of arguments; two samples are enough.
        layers: Names of its modules; ``name#k`` is the k-th call of one.
        stages: Names of the modules that are stages. Default: the model's own children that hold
            layers with weights in modules of theirs, or those of its only child.

    Returns:
        (layers,) labels for ``block_index``: "stem", the stages' names, "head".

    Raises:
        ValueError: No such module, a layer that did not run, or fewer than two stages.

    Example:
        >>> import torch
        >>> from repsim_fast import models
        >>> network = models.build("wrn-10-1", num_classes=10, seed=0)
        >>> making_stages(
        ...     network,
        ...     torch.rand(2, 3, 32, 32),
        ...     ["conv1", "stage1.0.relu1", "stage2.0.relu1", "stage2.0.conv1", "relu", "fc"],
        ... )
        ('stem', 'stem', 'stage1', 'stage2', 'stage3', 'head')
    """
    modules = dict(model.named_modules())
    names = _stages(model) if stages is None else list(stages)
    _check(modules, [*names, *(_called(layer, modules)[0] for layer in layers)])
    if len(names) < 2:
        raise ValueError(
            f"stages: found {names or 'none'} in {type(model).__name__}, expected two or more: "
            "name the modules"
        )
    trace = _Trace(modules, names)
    handles = []
    try:
        for name, module in modules.items():
            handles.append(module.register_forward_pre_hook(trace.entering(name)))
            handles.append(module.register_forward_hook(trace.leaving(name)))
        with torch.no_grad(), buffers_kept([model]), in_mode([model], "eval"):
            given = map_tensors(torch.clone, inputs)  # which the model may change
            model(*given) if isinstance(given, tuple) else model(given)
    finally:
        for handle in handles:
            handle.remove()
    return tuple(trace.label(*_called(layer, modules)) for layer in layers)


class _Trace:
    """Who made each tensor, while the model runs."""

    def __init__(self, modules: dict[str, nn.Module], stages: Sequence[str]) -> None:
        self.modules = modules
        self.stages = set(stages)
        self.running: list[str] = []
        self.left_one = False
        self.labels: dict[str, list[str]] = {}
        # By identity; the tensors are held, so that none takes the place of another.
        self.makers: dict[int, tuple[Tensor, str]] = {}

    def now(self) -> str:
        """Where the model is."""
        return self.running[-1] if self.running else HEAD if self.left_one else STEM

    def entering(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any) -> None:
            for x in _tensors(args):
                self.makers.setdefault(id(x), (x, self.now() if self.running else self.latest()))
            if name in self.stages:
                self.running.append(name)

        return hook

    def latest(self) -> str:
        """Outside of stages, what no module made comes of what was made last."""
        return next(reversed(self.makers.values()))[1] if self.makers else STEM

    def leaving(self, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            read = _tensors(args)
            passes = _passes_on(module) and bool(read)
            label = self.makers[id(read[0])][1] if passes else self.now()
            inner = any(True for _ in module.children()) and not parts(module)
            for x in _tensors(output):
                # A module around others returns what one of them made, or a sum of its own.
                if inner and id(x) in self.makers and name not in self.stages:
                    label = self.makers[id(x)][1]
                self.makers.pop(id(x), None)
                self.makers[id(x)] = (x, label)
            self.labels.setdefault(name, []).append(label)
            if name in self.stages:
                self.running.pop()
                self.left_one = True

        return hook

    def label(self, name: str, call: int) -> str:
        """Of a layer's call, the first one where it has no number."""
        calls = self.labels.get(name, [])
        if call > len(calls):
            raise ValueError(f"layers: {name!r} was called {len(calls)} times, wanted call {call}")
        return calls[call - 1]


def _passes_on(module: nn.Module) -> bool:
    return isinstance(module, _PASSING_TYPES) or layer_kind(module) in _PASSING


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    several = value.values() if isinstance(value, dict) else value
    if not isinstance(value, (tuple, list, dict)):
        return []
    return [x for one in several for x in _tensors(one)]


def _stages(model: nn.Module) -> list[str]:
    """Children that are containers of layers with weights, or those of an only child."""
    prefix, at = "", model
    while True:
        children = dict(at.named_children())
        found = [name for name, child in children.items() if _holds_layers(child)]
        if len(found) != 1:
            return [prefix + name for name in found]
        prefix, at = f"{prefix}{found[0]}.", children[found[0]]


def _holds_layers(module: nn.Module) -> bool:
    holds = isinstance(module, CONTAINERS) or any(True for _ in module.children())
    return holds and sum(any(True for _ in m.parameters(False)) for m in module.modules()) > 1


def _called(layer: str, modules: dict[str, nn.Module]) -> tuple[str, int]:
    name, _, call = layer.rpartition("#")
    return (name, int(call)) if call.isdecimal() and layer not in modules and name else (layer, 1)


def _check(modules: dict[str, nn.Module], names: Sequence[str]) -> None:
    for name in names:
        if name not in modules:
            raise ValueError(f"expected names of modules, got {name!r}")
