"""Batch norms that rectify at once for a while, where a ReLU follows them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.borrow import call
from repsim_fast._core.buffers import buffers_kept
from repsim_fast._core.in_place import same_answers
from repsim_fast._core.model_state import has_hooks, in_mode, unwrap
from repsim_fast._core.randomness import private_rng
from repsim_fast.ops import batch_norm_relu

Pair = tuple[nn.BatchNorm2d, nn.ReLU]


@contextlib.contextmanager
def fused(pairs: Sequence[Pair]) -> Iterator[None]:
    """Within, each norm rectifies its result, which the ReLU after it then returns as it is.

    Maps that the operator does not take, by dtype or layout, go through both as torch has them, and
    so does whatever else the ReLU is given: it may also follow other layers, here or in a rewritten
    form of the model without the norms.
    """
    with _replaced(pairs, _Fused):
        yield


def fusible(model: nn.Module, images: Tensor) -> list[Pair]:
    """The model's pairs of a batch norm and the ReLU on its result, if all may be fused, else none.

    On the CPU, with channels last. They may where answers and gradients stay the same when each
    norm's result is rectified by torch's own function; they do not where something else reads it.

    Args:
        model: In the layout that it will run in.
        images: As for ``same_answers``.
    """
    plain = unwrap(model) is model and not any(map(_is_special, model.modules()))
    if images.device.type != "cpu" or not plain:
        return []
    pairs = _in_a_row(model, images)
    # Not the operator itself: where it rounds otherwise, ReLUs further on may open or shut.
    same = pairs and same_answers(model, images, lambda: rectifying(pairs))
    return pairs if same else []


def rectifying(pairs: Sequence[Pair]) -> contextlib.AbstractContextManager[None]:
    """As ``fused``, by torch's own functions: what rounds as the modules by themselves do."""
    return _replaced(pairs, _Rectifying)


@contextlib.contextmanager
def _replaced(pairs: Sequence[Pair], form: Callable[[nn.BatchNorm2d], Any]) -> Iterator[None]:
    """Norms that run in another form within, and ReLUs that pass on what it has rectified."""
    try:
        for norm, rectifier in pairs:
            norm.forward = form(norm)  # type: ignore[method-assign]
            rectifier.forward = _Passing(rectifier)  # type: ignore[method-assign, assignment]
        yield
    finally:
        for pair in pairs:
            for module in pair:
                module.__dict__.pop("forward", None)


class _Rectifying:
    """A norm and its ReLU by torch's functions."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self.norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        return _mark(torch.relu(nn.BatchNorm2d.forward(self.norm, x)))


class _Fused:
    """A norm and its ReLU by the operator, or the norm alone."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        self.norm = norm

    def __call__(self, x: Tensor) -> Tensor:
        # Compilers do not follow marks, and fuse by themselves.
        if torch.compiler.is_compiling() or not self._is_taken(x):
            return nn.BatchNorm2d.forward(self.norm, x)
        return _mark(self._rectified(x))

    def _is_taken(self, x: Tensor) -> bool:
        """Whether the operator takes these maps, which torch's function would not refuse."""
        return (
            x.ndim == 4
            and x.shape[1] == self.norm.num_features
            and x.dtype in (torch.float32, torch.bfloat16)
            and x.is_contiguous(memory_format=torch.channels_last)
            and x.numel() > (x.shape[1] if self.norm.training else 0)
        )

    def _rectified(self, x: Tensor) -> Tensor:
        state: Any = self.norm  # buffers, whose types checkers do not know
        moments = None if state.training else (state.running_mean, state.running_var)
        rows = x.permute(0, 2, 3, 1)
        matrix = rows.reshape(-1, x.shape[1])
        y, *found = batch_norm_relu(matrix, state.weight, state.bias, moments, eps=state.eps)
        if moments is None:
            _count(state, found, len(matrix))
        return y.view(rows.shape).permute(0, 3, 1, 2)


@torch.no_grad()
def _count(norm: Any, moments: Sequence[Tensor], n: int) -> None:
    """Let running averages see mean and variance of a batch, as torch's module does."""
    mean, variance = moments
    norm.num_batches_tracked.add_(1)
    share = norm.momentum
    if share is None:
        share = 1.0 / float(norm.num_batches_tracked)
    norm.running_mean.lerp_(mean, share)
    norm.running_var.lerp_(variance * (n / (n - 1)), share)


class _Passing:
    """What a ReLU does meanwhile: nothing to what a norm has rectified."""

    def __init__(self, rectifier: nn.ReLU) -> None:
        self.rectifier = rectifier

    def __call__(self, x: Tensor) -> Tensor:
        if not torch.compiler.is_compiling() and _is_marked(x):
            return x
        return nn.ReLU.forward(self.rectifier, x)


_MARK = "_repsim_fast_rectified"


def _mark(x: Tensor) -> Tensor:
    """Let ``x`` be known for rectified until something is written into it."""
    if not x.is_inference():  # whose versions nobody counts
        setattr(x, _MARK, x._version)
    return x


def _is_marked(x: Tensor) -> bool:
    version: int | None = getattr(x, _MARK, None)
    return version is not None and version == x._version


def _in_a_row(model: nn.Module, images: Tensor) -> list[Pair]:
    """Norms of the usual kind whose result a ReLU gets, as one run of the model shows it."""
    modules = list(model.modules())
    norms = [m for m in modules if type(m) is nn.BatchNorm2d and _is_usual(m)]
    made: list[tuple[nn.BatchNorm2d, Tensor, int]] = []
    pairs: list[Pair] = []

    def after(norm: Any, _: Any, result: Tensor) -> None:
        made.append((norm, result, result._version))

    def before(rectifier: Any, given: Any) -> None:
        x = given[0]
        pairs.extend((norm, rectifier) for norm, y, was in made if y is x and x._version == was)

    with contextlib.ExitStack() as stack:
        for norm in norms:
            stack.callback(norm.register_forward_hook(after).remove)
        for rectifier in (m for m in modules if type(m) is nn.ReLU):
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
    # A norm that runs twice may be followed by something else the other time.
    runs = [norm for norm, _, _ in made]
    return [pair for pair in pairs if runs.count(pair[0]) == 1]


def _is_special(module: nn.Module) -> bool:
    """Whether a module runs otherwise than its class says, or somebody watches it."""
    own_form = "forward" in module.__dict__ or module._compiled_call_impl is not None
    return own_form or has_hooks(module)


def _is_usual(norm: nn.BatchNorm2d) -> bool:
    """Whether all that a norm of torch's has is here, in the dtype that the operator takes."""
    averages: list[Any] = [norm.running_mean, norm.running_var]
    parameters: list[Any] = [norm.weight, norm.bias]
    return (
        norm.track_running_stats
        and norm.num_batches_tracked is not None
        and all(type(p) is nn.Parameter for p in parameters)
        and all(t is not None and t.dtype == torch.float32 for t in parameters + averages)
    )
