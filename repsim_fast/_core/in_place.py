"""Rectifiers that overwrite their input for a while, where nobody else reads it."""

from __future__ import annotations

import contextlib
import math
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .borrow import Model, call
from .buffers import buffers_kept
from .model_state import ModelMode, has_hooks, in_mode, unwrap
from .randomness import generator_states, private_rng

Rectifier = nn.ReLU | nn.ReLU6


@contextlib.contextmanager
def in_place(rectifiers: Sequence[Rectifier]) -> Iterator[None]:
    """Within, modules overwrite their input; afterwards, also after an exception, no more."""
    try:
        for module in rectifiers:
            module.inplace = True
        yield
    finally:
        for module in rectifiers:
            module.inplace = False


def overwritable(model: Model, images: Tensor) -> list[Rectifier]:
    """The model's ReLUs if they may all work in place, else none; those with a form of their own
    aside.

    They may where answers and gradients, to images and weights, stay the same up to rounding in
    eval and in training mode: that fails where something else reads the input of one of them, such
    as a shortcut. The model is run in both ways for it, without a trace. Only what it returns
    counts, not what it may keep for itself, so models with hooks, compiled and wrapped ones have
    none.

    Args:
        model: In the layout that it will run in.
        images: As for ``same_answers``.
    """
    if not isinstance(model, nn.Module) or unwrap(model) is not model:
        return []
    found = [m for m in model.modules() if isinstance(m, Rectifier) and _is_usual(m)]
    return found if found and same_answers(model, images, lambda: in_place(found)) else []


def _is_usual(rectifier: Rectifier) -> bool:
    """Whether it is of torch's own class and code, and leaves its input."""
    own = type(rectifier) in (nn.ReLU, nn.ReLU6) and "forward" not in rectifier.__dict__
    return own and not rectifier.inplace


def same_answers(
    model: nn.Module, images: Tensor, changed: Callable[[], AbstractContextManager[None]]
) -> bool:
    """Whether answers and gradients, to images and weights, are the same up to rounding within.

    In eval and in training mode, in which the model is run without a trace. Never of models that
    somebody watches by hooks, that may branch at random, or whose weights have no value yet.

    Args:
        images: Like those to come, (N, ...): the model is run on two and, as it may branch on their
            number, on N.
        changed: Context of what may differ.
    """
    watched = any(has_hooks(m) for m in model.modules()) or any(
        p._backward_hooks for p in model.parameters()
    )
    lazy = any(map(is_lazy, model.parameters()))
    if watched or lazy or not images.is_floating_point():
        return False
    try:
        for mode in _MODES:
            if _draws(model, images, mode):
                return False
            for n in sorted({2, max(2, len(images))}):
                want = _answer_and_gradients(model, images, n, mode)
                with changed():
                    got = _answer_and_gradients(model, images, n, mode)
                if not all(map(_close, got, want)):
                    return False
    except Exception:  # of autograd, where a value that it needs was overwritten, or of the model
        return False
    return True


_MODES: tuple[ModelMode, ...] = ("eval", "train")


def _draws(model: nn.Module, images: Tensor, mode: ModelMode) -> bool:
    """Whether a module with others inside draws random numbers, by which it may choose among them.

    Those without, such as dropout, change values only.
    """
    leaves = [m for m in model.modules() if not any(m.children())]
    with (
        torch.no_grad(),
        private_rng(images.device, 0),
        buffers_kept([model]),
        in_mode([model], mode),
        in_mode(leaves, "eval"),
    ):
        before = _random_states(images.device)
        call(model, different(images, 2))
        now = _random_states(images.device)
    return any(state != now[kind] for kind, state in before.items())


def _random_states(device: torch.device) -> dict[str, object]:
    """Of torch's and Python's generators."""
    torchs = {kind: state.numpy().tobytes() for kind, state in generator_states(device).items()}
    return {**torchs, "python": random.getstate()}


def _answer_and_gradients(
    model: nn.Module, images: Tensor, n: int, mode: ModelMode
) -> list[Tensor]:
    """Images after the run, logits and their gradients to images and weights."""
    with (
        torch.inference_mode(False),
        torch.enable_grad(),
        private_rng(images.device, 0),
        buffers_kept([model]),
        in_mode([model], mode),
    ):
        x = different(images, n).requires_grad_()
        given = x.clone()  # which a model may write on, and which shows who does
        logits = call(model, given, copy=False)
        seen = [given.detach().clone(), logits.detach().clone()]
        weights = [p for p in model.parameters() if p.requires_grad]
        scale = torch.linspace(-1, 1, logits.numel(), device=x.device).view_as(logits)
        gradients = torch.autograd.grad((logits * scale).sum(), [x, *weights], allow_unused=True)
        return [*seen, *(torch.zeros(()) if g is None else g for g in gradients)]


def different(images: Tensor, n: int) -> Tensor:
    """Images that differ: batch norms turn equal ones into zeros, which hide what is read."""
    first = images[:1].detach()
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((n, *first.shape[1:]), generator=generator) - 0.5
    return (first + noise.to(first)).contiguous(memory_format=_format(first))


def _format(images: Tensor) -> torch.memory_format:
    last = images.ndim == 4 and images.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _close(got: Tensor, want: Tensor) -> bool:
    # Half of the digits: rounding stays far below, a value that was overwritten far above.
    bound = math.sqrt(torch.finfo(want.dtype).eps) * float(want.abs().max())
    return float((got - want).abs().max()) <= bound
