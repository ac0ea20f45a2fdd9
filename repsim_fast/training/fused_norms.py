"""Batch norms that rectify at once for a while, where a ReLU follows them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.borrow import call
from repsim_fast._core.in_place import same_answers
from repsim_fast._core.model_state import buffers_kept, has_hooks, in_mode, unwrap
from repsim_fast._core.randomness import private_rng
from repsim_fast.ops import batch_norm_relu

Pair = tuple[nn.BatchNorm2d, nn.ReLU]


@contextlib.contextmanager
def fused(pairs: Sequence[Pair]) -> Iterator[None]:
    """Within, each norm rectifies its result and the ReLU after it returns what it gets.

    Maps that the operator does not take, by dtype or layout, go through torch's functions.
    """
    with _rectifying(pairs, _Fused):
        yield


def fusible(model: nn.Module, images: Tensor) -> list[Pair]:
    """The model's pairs of a batch norm and the ReLU on its result, if all may be fused, else none.

    On the CPU, with channels last. They may where answers and gradients stay the same when torch's
    own functions of a pair run where the norm stands; they do not where something else reads the
    norm's result.

    Args:
        model: In the layout that it will run in.
        images: Like those to come, (N, ...), at least one.
    """
    if images.device.type != "cpu" or unwrap(model) is not model:
        return []
    pairs = _in_a_row(model, images)
    # Not the operator itself: where it rounds otherwise, ReLUs further on may open or shut.
    same = pairs and same_answers(model, images, lambda: _rectifying(pairs, _unfused))
    return pairs if same else []


@contextlib.contextmanager
def _rectifying(pairs: Sequence[Pair], form: Callable[[nn.BatchNorm2d], Any]) -> Iterator[None]:
    modules = [module for pair in pairs for module in pair]
    try:
        for norm, rectifier in pairs:
            norm.forward = form(norm)  # type: ignore[method-assign]
            rectifier.forward = _as_it_is  # type: ignore[method-assign, assignment]
        yield
    finally:
        for module in modules:
            module.__dict__.pop("forward", None)


def _unfused(norm: nn.BatchNorm2d) -> Callable[[Tensor], Tensor]:
    return lambda x: torch.relu(nn.BatchNorm2d.forward(norm, x))


class _Fused:
    """What a norm does meanwhile."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self.norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        norm = self.norm
        rows = x.permute(0, 2, 3, 1) if x.ndim == 4 else x
        if (
            x.ndim != 4
            or x.shape[1] != norm.num_features
            or x.dtype not in (torch.float32, torch.bfloat16)
            or not rows.is_contiguous()
            or (norm.training and x.numel() <= x.shape[1])
            or not x.numel()
        ):
            return _unfused(norm)(x)
        state: Any = norm  # buffers, whose types checkers do not know
        moments = None if norm.training else (state.running_mean, state.running_var)
        matrix = rows.reshape(-1, x.shape[1])
        y, mean, variance = batch_norm_relu(matrix, norm.weight, norm.bias, moments, eps=norm.eps)
        if norm.training:
            self._count(mean, variance, len(matrix))
        return y.view(rows.shape).permute(0, 3, 1, 2)

    @torch.no_grad()
    def _count(self, mean: Tensor, variance: Tensor, n: int) -> None:
        state: Any = self.norm
        state.num_batches_tracked.add_(1)
        share = state.momentum
        if share is None:
            share = 1.0 / float(state.num_batches_tracked)
        state.running_mean.lerp_(mean, share)
        state.running_var.lerp_(variance * (n / (n - 1)), share)


def _as_it_is(x: Tensor) -> Tensor:
    return x


def _in_a_row(model: nn.Module, images: Tensor) -> list[Pair]:
    """Norms of the usual kind whose result a ReLU gets, as one run of the model shows it."""
    modules = list(model.modules())
    if any(has_hooks(module) for module in modules):
        return []
    norms = [m for m in modules if type(m) is nn.BatchNorm2d and _is_usual(m)]
    rectifiers = [m for m in modules if type(m) is nn.ReLU and "forward" not in m.__dict__]
    made: list[tuple[nn.BatchNorm2d, Tensor]] = []
    pairs: list[Pair] = []

    def after(norm: Any, _: Any, result: Tensor) -> None:
        made.append((norm, result))

    def before(rectifier: Any, given: Any) -> None:
        pairs.extend((norm, rectifier) for norm, result in made if result is given[0])

    with contextlib.ExitStack() as stack:
        for norm in norms:
            stack.callback(norm.register_forward_hook(after).remove)
        for rectifier in rectifiers:
            stack.callback(rectifier.register_forward_pre_hook(before).remove)
        for context in (
            torch.no_grad(), private_rng(images.device, 0), buffers_kept([model]),
            in_mode([model], "eval"),
        ):  # fmt: skip
            stack.enter_context(context)
        try:
            call(model, images[:1])
        except Exception:  # of the model's own code, which the training will meet
            return []
    # A module that runs twice may be followed by something else the other time.
    once = [module for pair in pairs for module in pair]
    runs = [norm for norm, _ in made]
    return [
        pair for pair in pairs
        if runs.count(pair[0]) == 1 and all(once.count(module) == 1 for module in pair)
    ]  # fmt: skip


def _is_usual(norm: nn.BatchNorm2d) -> bool:
    return (
        "forward" not in norm.__dict__
        and norm.affine
        and norm.running_mean is not None
        and all(type(p) is nn.Parameter and p.dtype == torch.float32 for p in norm.parameters())
    )
