"""Optimizers by name or factory, over parameter groups."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from repsim_fast._core.checks import check_number
from repsim_fast.capture.kinds import layer_kind

if TYPE_CHECKING:
    from .optimisation import Optimisation

OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
"""Parameter groups -> optimizer."""


def build(model: nn.Module, lr: float, how: Optimisation) -> torch.optim.Optimizer:
    """The optimizer of the model's parameters at its highest rate.

    Raises:
        TypeError: A factory that makes no optimizer.
        ValueError: One that cannot be stepped without a closure or saved, of other parameters, with
            a rate out of range, or given a rate or decay that its groups override.
    """
    groups = parameter_groups(model, lr, how)
    match how.optimizer:
        case "sgd" | "sam":
            return torch.optim.SGD(groups, momentum=how.momentum, nesterov=how.nesterov)
        case "adam":
            return torch.optim.Adam(groups, betas=(how.momentum, how.beta2))
        case "adamw":
            return torch.optim.AdamW(groups, betas=(how.momentum, how.beta2))
    assert callable(how.optimizer)
    optimizer = how.optimizer(groups)
    _check(optimizer, model)
    _check_heard(optimizer, how.optimizer)
    return optimizer


def parameter_groups(model: nn.Module, lr: float, how: Optimisation) -> list[dict[str, Any]]:
    """All parameters, in one group or by whether they decay."""
    usual = {"lr": lr, "weight_decay": how.weight_decay}
    if how.decay_norms_and_biases:
        return [{"params": list(model.parameters()), **usual}]
    of_norms = {
        id(parameter)
        for module in model.modules()
        if layer_kind(module) == "norm"
        for parameter in module.parameters(recurse=False)
    }
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for parameter in model.parameters():
        is_kept = parameter.ndim <= 1 or id(parameter) in of_norms
        (kept if is_kept else decayed).append(parameter)
    groups = [{"params": decayed, **usual}, {"params": kept, **usual, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]


def described(optimizer: torch.optim.Optimizer, lr: float) -> dict[str, Any]:
    """What tells it from another one: its class and its groups' settings, by name.

    Raises:
        ValueError: Settings that a checkpoint cannot hold.
    """
    kind = type(optimizer)
    about: dict[str, Any] = {"optimizer": f"{kind.__module__}.{kind.__qualname__}"}
    for number, group in enumerate(optimizer.param_groups):
        about[f"group {number} parameters"] = len(group["params"])
        for name, value in settings(group).items():
            about[f"group {number} {name}"] = value
        if group["lr"] != lr:
            about[f"group {number} lr"] = float(group["lr"])
    return about


def settings(group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's settings, without its parameters and its rate, which follows the schedule.

    Raises:
        ValueError: A value that JSON cannot hold.
    """
    entries = {name: value for name, value in group.items() if name not in ("params", "lr")}
    for name, value in entries.items():
        parts = value if isinstance(value, tuple | list) else [value]
        if not all(isinstance(part, int | float | str | None) for part in parts):
            raise ValueError(
                f"optimizer: setting {name!r} of a parameter group must be of numbers or texts, "
                f"which a checkpoint can hold, got {type(value).__name__}"
            )
    return {name: list(v) if isinstance(v, tuple) else v for name, v in entries.items()}


def _check(optimizer: object, model: nn.Module) -> None:
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise TypeError(
            "optimizer: the factory must make a torch.optim.Optimizer, got "
            f"{type(optimizer).__name__}"
        )
    for number, group in enumerate(optimizer.param_groups):
        check_number(f"optimizer: lr of parameter group {number}", float(group["lr"]))
    closure = inspect.signature(optimizer.step).parameters.get("closure")
    if closure is not None and closure.default is inspect.Parameter.empty:
        raise ValueError(
            f"optimizer: expected one that steps without a closure, got {type(optimizer).__name__}"
        )
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    missing = [n for n, p in model.named_parameters() if p.requires_grad and id(p) not in held]
    if missing:
        raise ValueError(
            "optimizer: the factory must take all parameters that require a gradient, left out "
            f"{missing[0]!r} and {len(missing) - 1} more"
        )


def _check_heard(optimizer: torch.optim.Optimizer, factory: OptimizerFactory) -> None:
    """What a factory gives beside the groups counts for those alone that have no such entry."""
    usual = inspect.signature(type(optimizer)).parameters
    given = factory.keywords if isinstance(factory, partial) else {}
    for name, where in (("lr", "train(lr=...)"), ("weight_decay", "Optimisation")):
        value = given.get(name, getattr(optimizer, "defaults", {}).get(name))
        by_default = name not in usual or value == usual[name].default
        if value is None or (by_default and name not in given):
            continue
        used = list(dict.fromkeys(float(group[name]) for group in optimizer.param_groups))
        if float(value) not in used:
            raise ValueError(
                f"optimizer: the factory gave {name}={float(value):g} beside parameter groups with "
                f"{name} {', '.join(f'{own:g}' for own in used)}, which count: give it to {where}, "
                "or change it in the groups"
            )
