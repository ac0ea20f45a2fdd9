"""Networks that a Python file of the user makes, `FILE.py:NAME`."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from repsim_fast._core.suggestions import among


def from_factory(
    path: str,
    name: str,
    num_classes: int | None,
    in_channels: int,
    *,
    otherwise: int | None = None,
    settings: Mapping[str, Any] | None = None,
) -> nn.Module:
    """What a function of a file returns, or a network that stands there.

    Args:
        path: A Python file, which is run; files beside it may be imported there.
        name: A function that returns a network, a class of one, or a network. It is called
            without arguments but for those of ``num_classes``, ``in_channels`` and ``settings``
            that it has.
        num_classes: Passed on where it is known and the function takes it.
        in_channels: Passed on where the function takes it.
        otherwise: Classes for a function that wants their number where it is not known.
        settings: What a checkpoint says the network was made with; these go first.

    Raises:
        FileNotFoundError: No such file.
        ValueError: Nothing of that name there, or it wants other arguments.
        TypeError: It is, or returns, no network.
    """
    module = _module(path)
    public = [key for key, value in vars(module).items() if key[0] != "_" and callable(value)]
    if not hasattr(module, name):
        name = among(f"{path} has no", name, public)
    made: Any = getattr(module, name)
    if callable(made) and not isinstance(made, nn.Module):
        values = {"num_classes": num_classes, "in_channels": in_channels, **(settings or {})}
        made = made(**_arguments(f"{path}:{name}", made, values, otherwise))
    if not isinstance(made, nn.Module):
        raise TypeError(f"{path}:{name} must give a torch.nn.Module, got {type(made).__name__}")
    return made


def _module(path: str) -> ModuleType:
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise FileNotFoundError(f"no Python file {path!r}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    beside = str(file.parent)
    sys.path.insert(0, beside)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(beside)
    return module


def _arguments(
    what: str, factory: Any, values: dict[str, Any], otherwise: int | None
) -> dict[str, Any]:
    parameters = parameters_of(factory)
    wanted = [
        key
        for key, one in parameters.items()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if values["num_classes"] is None and "num_classes" in wanted:
        values["num_classes"] = otherwise
    if values["num_classes"] is None:
        del values["num_classes"]
    lacking = [key for key in wanted if key not in values]
    if lacking:
        raise ValueError(
            f"{what} must take no arguments beside num_classes, in_channels and what the "
            f"hyper_parameters of a checkpoint say, it wants {', '.join(lacking)}"
            + ("; the number of classes is not known here" if "num_classes" in lacking else "")
        )
    return {key: value for key, value in values.items() if key in parameters}


def parameters_of(factory: Any) -> Mapping[str, inspect.Parameter]:
    """What a function or class takes; nothing of those written in C."""
    try:
        return inspect.signature(factory).parameters
    except ValueError:
        return {}
