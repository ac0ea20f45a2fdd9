"""What an optimizer carries from step to step, as tensors and numbers by name: no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core import headers

from .optimizers import settings

SCHEMA = headers.record(
    {
        "tensors": headers.named(
            headers.record({"shape": headers.listed(headers.whole(0)), "dtype": headers.text(100)})
        ),
        "numbers": headers.named(headers.optional(headers.number())),
        "groups": headers.listed(headers.named(headers.free)),
    }
)


def tensors_of(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Its state's tensors, by the number of the parameter and the name: "0.momentum_buffer"."""
    return {name: value for name, value in _entries(optimizer) if isinstance(value, Tensor)}


def about(optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """The rest of it, in the form of ``SCHEMA``: which tensors there are, numbers, settings.

    Raises:
        TypeError: State that is neither tensors nor numbers.
    """
    numbers = {name: value for name, value in _entries(optimizer) if not isinstance(value, Tensor)}
    for name, value in numbers.items():
        if not isinstance(value, int | float | None):
            raise TypeError(
                "optimizer: a checkpoint holds state of tensors and numbers, got "
                f"{type(value).__name__} in {name!r} of {type(optimizer).__name__}"
            )
    return {
        "tensors": {name: _form(value) for name, value in tensors_of(optimizer).items()},
        "numbers": numbers,
        "groups": [settings(group) for group in optimizer.param_groups],
    }


def put_back(
    where: str, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor], kept: Any
) -> None:
    """Give the optimizer the state back that ``tensors_of`` and ``about`` took.

    Args:
        where: What messages name.
        optimizer: Made as the other one was.
        tensors: Of ``tensors_of``.
        kept: Of ``about``.

    Raises:
        ValueError: State that is incomplete or that of another optimizer.
    """
    found = {name: _form(value) for name, value in tensors.items()}
    if found != kept["tensors"]:
        raise ValueError(
            f"{where}: expected the optimizer's state {sorted(kept['tensors'])}, "
            f"got {sorted(found)} or others of these shapes and dtypes"
        )
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    entries: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **kept["numbers"]}.items():
        number, _, key = name.partition(".")
        if not (number.isascii() and number.isdigit() and len(number) < 9 and key):
            raise ValueError(f"{where}: expected optimizer.NUMBER.NAME, got {name[:80]!r}")
        if int(number) >= len(parameters):
            raise ValueError(
                f"{where}: expected state of {len(parameters)} parameters, got {name[:80]!r}"
            )
        entries.setdefault(int(number), {})[key] = value
    groups = [_as_before(group) for group in optimizer.param_groups]
    if [g.keys() for g in groups] != [g.keys() for g in kept["groups"]]:
        raise ValueError(f"{where} holds the parameter groups of another optimizer")
    try:
        optimizer.load_state_dict({**optimizer.state_dict(), "state": entries})
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise ValueError(f"{where} holds the state of another optimizer: {error}") from error
    for number, state in entries.items():
        loaded = optimizer.state[parameters[number]]
        for key, value in state.items():
            # torch's own loading casts to the dtype of the parameter, which rounds.
            if isinstance(value, Tensor):
                loaded[key] = value.to(loaded[key].device, copy=True)
    for group, usual, before in zip(optimizer.param_groups, groups, kept["groups"], strict=True):
        group.update({k: tuple(v) if usual[k] is tuple else v for k, v in before.items()})


def _as_before(group: Mapping[str, Any]) -> dict[str, type]:
    return {name: type(group[name]) for name in settings(group)}


def _entries(optimizer: torch.optim.Optimizer) -> list[tuple[str, Any]]:
    state = optimizer.state_dict()["state"]
    return [(f"{i}.{name}", value) for i, held in state.items() for name, value in held.items()]


def _form(value: Tensor) -> dict[str, Any]:
    return {"shape": list(value.shape), "dtype": str(value.dtype)}
