"""A private eval-mode form of a model: BatchNorm folded into the layer before it."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils import parametrize

from repsim_fast._core.model_state import has_hooks
from repsim_fast._core.randomness import generator_states

_LINEAR_MAPS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Unfoldable(Exception):
    """The model cannot be rewritten; the message says why."""


@dataclass(frozen=True)
class _Pair:
    """Where a private layer's weights come from: a layer and, if one follows, its norm."""

    layer: Any  # modules, whose attributes type checkers do not know
    norm: Any
    private: Any

    @torch.no_grad()
    def refresh(self) -> None:
        """w' = w s and b' = (b - mean) s + beta with s = gamma / sqrt(var + eps), per output.

        s and b' in float64; into the same memory, which compiled code and graphs know.
        """
        weight, bias = self.layer.weight, self.layer.bias
        if self.norm is None:
            self.private.weight.copy_(weight)
            if bias is not None:
                self.private.bias.copy_(bias)
            return
        norm = self.norm
        # Devices without float64 do not train BatchNorm in it either.
        wide = torch.float32 if weight.device.type == "mps" else torch.float64
        scale = (norm.running_var.to(wide) + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight.to(wide)
        shift = -norm.running_mean.to(wide)
        if bias is not None:
            shift = shift + bias.to(wide)
        shift = shift * scale
        if norm.bias is not None:
            shift = shift + norm.bias.to(wide)
        scale = scale.to(torch.promote_types(weight.dtype, torch.float32))
        scale = scale.view(-1, *[1] * (weight.ndim - 1))
        torch.mul(weight, scale, out=self.private.weight)
        self.private.bias.copy_(shift)


class FoldedModel:
    """The traced model with private layers; the caller's model shares the rest and never changes.

    A BatchNorm is folded where the traced graph applies it to the result of a convolution or
    linear layer that nothing else reads: networks that put the norm before the convolution
    (pre-activation) offer such a place only where a norm follows a convolution all the same, as
    between the two convolutions of a block.

    Args:
        model: In eval mode, all of it.
        example: A few images (N, ...) that the model takes; the form is checked on them.
        fold: Fold norms.
        channels_last: Keep all weights of 2-d convolutions in that layout, in private copies.

    Attributes:
        module: What to call.
        folded: Names of the norms that are gone.

    Raises:
        Unfoldable: Hooks, control flow that tracing cannot follow, or a form whose logits differ.
    """

    def __init__(
        self, model: nn.Module, example: Tensor, *, fold: bool, channels_last: bool
    ) -> None:
        if any(has_hooks(module) for module in model.modules()):
            raise Unfoldable("the model has hooks, which a rewritten model would not run")
        with torch.no_grad():
            states = generator_states(example.device)
            # The model may write on what it is given: copies for it and for its traces.
            want = model(example.clone())
            if not isinstance(want, Tensor):
                raise Unfoldable("the model does not return a tensor")
            now = generator_states(example.device)
            if not all(torch.equal(now[kind], state) for kind, state in states.items()):
                raise Unfoldable("the model draws random numbers, which a trace may hold fixed")
            try:
                traced = fx.symbolic_trace(model)
                ShapeProp(traced).propagate(example.clone())
            except Exception as error:  # whatever the model's own code raises when it is traced
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                raise Unfoldable(f"the model cannot be traced: {reason}") from error
            self.module: nn.Module = traced
            self.folded: tuple[str, ...] = ()
            self._pairs: list[_Pair] = []
            if fold:
                self._fold(traced)
            if channels_last:
                self._copy_convolutions(traced)
            traced.graph.lint()
            traced.recompile()
        self.refresh()
        if not self.answers(example, want):
            raise Unfoldable("the rewritten model's logits differ from the model's")

    @torch.no_grad()
    def answers(self, images: Tensor, want: Any) -> bool:
        """Whether its logits of ``images`` are those of the model up to rounding."""
        got = self.module(images.clone())
        if not isinstance(want, Tensor) or want.shape != got.shape or want.dtype != got.dtype:
            return False
        # Half of the digits: rounding stays far below, a wrong rewrite far above.
        bound = math.sqrt(torch.finfo(want.dtype).eps) * float(want.abs().max())
        return float((got - want).abs().max()) <= bound

    def refresh(self) -> None:
        """Take over the model's present weights and statistics."""
        for pair in self._pairs:
            pair.refresh()

    def _fold(self, traced: fx.GraphModule) -> None:
        modules = dict(traced.named_modules())
        calls = [node.target for node in traced.graph.nodes if node.op == "call_module"]
        for node in list(traced.graph.nodes):
            if node.op != "call_module" or type(modules[node.target]) not in _NORMS:
                continue
            norm, before = modules[node.target], node.args[0] if node.args else None
            if (
                not isinstance(before, fx.Node)
                or before.op != "call_module"
                or len(before.users) != 1
                # A layer called twice, or read under two names, keeps its weights.
                or calls.count(before.target) != 1
                or calls.count(node.target) != 1
                or norm.running_mean is None
            ):
                continue
            layer = modules[before.target]
            if type(layer) not in _LINEAR_MAPS or not _plain(layer) or not _plain(norm):
                continue
            # A linear layer's outputs are BatchNorm's channels only in a matrix.
            if isinstance(layer, nn.Linear) and len(before.meta["tensor_meta"].shape) != 2:
                continue
            private = _private(layer, bias=True)
            _set(traced, str(before.target), private)
            self._pairs.append(_Pair(layer, norm, private))
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
            self.folded += (str(node.target),)

    def _copy_convolutions(self, traced: fx.GraphModule) -> None:
        for name, module in list(traced.named_modules()):
            if type(module) is not nn.Conv2d or not _plain(module):
                continue
            if all(module is not pair.private for pair in self._pairs):
                private = _private(module, bias=module.bias is not None)
                _set(traced, name, private)
                self._pairs.append(_Pair(module, None, private))
                module = private
            module.to(memory_format=torch.channels_last)


def _plain(module: nn.Module) -> bool:
    """Whether its parameters are ordinary ones."""
    return not parametrize.is_parametrized(module)


def _private(layer: nn.Module, *, bias: bool) -> nn.Module:
    """A layer like ``layer`` with parameters of its own."""
    own = copy.copy(layer)  # shares what is not replaced below
    weight = layer.weight
    assert isinstance(weight, Tensor)
    own._parameters = {
        "weight": nn.Parameter(torch.empty_like(weight), requires_grad=False),
        "bias": nn.Parameter(weight.new_empty(len(weight)), requires_grad=False) if bias else None,
    }
    return own


def _set(root: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(root.get_submodule(parent), last, module)
