"""What torch needs to know of steps and starts besides their kernels.

Fake kernels, that results are constants for autograd, and the plain-torch twins as what torch calls
on devices that have no kernel.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from repsim_fast.ops import extension
from repsim_fast.ops.checks import check_same_device
from repsim_fast.ops.directions import Scalar


class StepCall(NamedTuple):
    """Arguments of a step as its twin takes them; without a gradient it is a projection."""

    x_adv: Tensor
    grad: Tensor | None
    x: Tensor
    step_size: Scalar
    eps: Scalar
    low: Scalar
    high: Scalar


def register_step(name: str, plain: Callable[..., Tensor]) -> None:
    """Registers the step `name` and its in-place form.

    Args:
        name: Name of the operator; that of its in-place form has a _ at its end.
        plain: Its twin, (StepCall, *arguments of one norm) -> the next iterate.
    """

    def twin(x_adv: Tensor, grad: Tensor | None, x: Tensor, *others: Any) -> Tensor:
        return plain(StepCall(x_adv, grad, x, *_joined(others[:8])), *others[8:])

    _register(name, twin)


def register_start(name: str, plain: Callable[..., Tensor]) -> None:
    """Registers the random start `name` and its in-place form.

    Args:
        name: Name of the operator; that of its in-place form has a _ at its end.
        plain: Its twin, (x, norm, eps, low, high, seed, offset) -> start.
    """

    def twin(x: Tensor, norm: str, *others: Any) -> Tensor:
        return plain(x, norm, *_joined(others[:6]), *others[6:])

    _register(name, twin)


def _joined(split: Sequence[Any]) -> list[Scalar]:
    """One value for each number and the tensor that may stand in its place."""
    return [
        number if tensor is None else tensor
        for number, tensor in zip(split[::2], split[1::2], strict=True)
    ]


def _register(name: str, twin: Callable[..., Tensor]) -> None:
    names = _arguments(name)

    def fake(*arguments: Any) -> Tensor:
        _check_devices(names, arguments)
        return torch.empty_like(arguments[names.index("x")])

    def fake_in_place(*arguments: Any) -> None:
        _check_devices(_arguments(f"{name}_"), arguments)

    @torch.no_grad()
    def fallback(*arguments: Any) -> Tensor:
        x = arguments[names.index("x")]
        _check_fallback(x)
        return twin(*arguments) if x.numel() else torch.empty_like(x)

    def fallback_in_place(x_adv: Tensor, *others: Any) -> None:
        x_adv.copy_(fallback(*(x_adv, *others)[-len(names) :]))

    for operator, meta, default in (
        (name, fake, fallback),
        (f"{name}_", fake_in_place, fallback_in_place),
    ):
        torch.library.register_fake(f"repsim_fast::{operator}", meta)
        _library.impl(operator, default, "CompositeExplicitAutograd")
        _library.impl(operator, torch.library.fallthrough_kernel, "Autograd")


def _arguments(name: str) -> list[str]:
    schema = getattr(torch.ops.repsim_fast, name).default._schema
    return [argument.name for argument in schema.arguments]


def _check_devices(names: Sequence[str], arguments: Sequence[Any]) -> None:
    tensors = {
        name: argument
        for name, argument in zip(names, arguments, strict=True)
        if isinstance(argument, Tensor)
    }
    check_same_device(x=tensors.pop("x"), **tensors)


def _check_fallback(x: Tensor) -> None:
    if x.layout is not torch.strided:
        raise RuntimeError(f"x: expected a dense tensor, got {x.layout}")
    if x.is_cuda:
        warnings.warn(
            f"x: is on {x.device}, but {extension.cuda_missing}; steps are taken in plain torch",
            RuntimeWarning,
            stacklevel=2,
        )


_library: Any = torch.library.Library("repsim_fast", "IMPL")  # type: ignore[no-untyped-call]
