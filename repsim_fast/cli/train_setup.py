"""What `repsim-fast train` trains and how, from its options or a published recipe."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import typer

from repsim_fast import models
from repsim_fast._core.ramp import Ramp
from repsim_fast.attacks import PGD
from repsim_fast.models.state_files import is_safetensors, split_key
from repsim_fast.training import Optimisation, SelectivityRegulariser, methods, recipes

from . import ramps
from .attack_setup import radius_of
from .train_options import CourseOptions, MethodOptions, OptimisationOptions

# Methods that hand further options on to an attack, and yet have no other norm.
LINF_ONLY = ("gradalign",)
# Options of methods that have an option of the command of their own, by their names in Python.
OWN_OPTIONS = {"steps": "attack_steps", "step_size": "step_size", "beta": "beta"}


@dataclass(frozen=True)
class Setup:
    """What is trained and how.

    Attributes:
        model: Name of the network.
        method: Name of the training method.
        method_options: Its settings.
        norm: Of the method's radius.
        eps: Radius of the method; of one without, that of the attack that measures.
        optimisation: How the weights move.
        settings: Further arguments of ``training.train``.
    """

    model: str
    method: str
    method_options: Mapping[str, Any]
    norm: str
    eps: float
    optimisation: Optimisation
    settings: Mapping[str, Any]

    def with_autocast(self, dtype: torch.dtype | None) -> Setup:
        """The same in mixed precision."""
        return replace(self, optimisation=replace(self.optimisation, autocast=dtype))


def of_options(
    model: str, method: MethodOptions, course: CourseOptions, how: OptimisationOptions
) -> Setup:
    """The set-up that the options name.

    Raises:
        ValueError: No such method, or an option that it or the optimizer does not have.
    """
    eps = checked_radius("--eps", method.norm, method.eps)
    return Setup(
        model,
        method.method,
        method_options(method, eps),
        method.norm,
        ramps.last(eps),
        Optimisation(**_optimisation(how)),
        asdict(course),
    )


def of_recipe(
    name: str,
    model: str | None,
    method: MethodOptions,
    course: CourseOptions,
    how: OptimisationOptions,
    typed: set[str],
) -> Setup:
    """A recipe's set-up, with what was typed in its place.

    Args:
        typed: Names of the options that stand on the command line.

    Raises:
        ValueError: No such recipe, or an option that is the recipe's to decide.
    """
    recipe = recipes.get(name)
    own = asdict(method)
    # Without a method of the recipe's own, norm and radius are those of the measurement.
    free = set() if recipe.eps else {"norm", "eps"}
    for option in own.keys() & typed - free:
        raise ValueError(f"--{option.replace('_', '-')} is the preset's: leave out one of them")
    rest = {**recipe.settings, **{k: v for k, v in asdict(course).items() if k in typed}}
    typed = typed | ({"regularisers"} if "selectivity" in typed else set())
    changed = {k: v for k, v in _optimisation(how).items() if k in typed}
    return Setup(
        model or recipe.model,
        rest.pop("method"),
        rest.pop("method_options", {}),
        "linf" if recipe.eps else method.norm,
        recipe.eps or _of_the_measurement(method),
        replace(rest.pop("optimisation"), **changed),
        rest,
    )


def _of_the_measurement(method: MethodOptions) -> float:
    radius = checked_radius("--eps", method.norm, method.eps)
    if isinstance(radius, Ramp):
        raise ValueError(f"--eps: the training has no radius to change, {ramps.shown(radius)}")
    return radius


def named(model: str | None, init: Path | None, preset: str | None) -> str | None:
    """The network asked for, that of the checkpoint begun with, or None for the preset's.

    Raises:
        ValueError: None of them says.
        FileNotFoundError: No such checkpoint.
    """
    if model is None and init is not None:
        file, key = split_key(init)
        if Path(file).is_file() and (key is not None or not is_safetensors(file)):
            raise ValueError(f"--model: name the network that {init} has weights of")
        return str(models.checkpoint_header(init)["name"])
    if model is None and preset is None:
        raise ValueError("--model: name a network, or a --preset, or a checkpoint to --init with")
    return model


def method_options(given: MethodOptions, eps: float | Ramp) -> dict[str, Any]:
    """What of the command line is a setting of the method.

    Raises:
        ValueError: No such method, or a setting that it does not have.
    """
    method = given.method
    if method not in methods.available():
        raise ValueError(
            f"--method must be one of {', '.join(methods.available())}, got {method!r}"
        )
    parameters = inspect.signature(getattr(methods, method.replace("-", "_"))).parameters
    options: dict[str, Any] = {"eps": eps} if "eps" in parameters else {}
    if isinstance(eps, Ramp) and not options:
        raise ValueError(f"--eps: method {method!r} has no radius to change, {ramps.shown(eps)}")
    if given.norm != "linf" and "eps" in parameters:
        known = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
        if not known or method in LINF_ONLY:
            raise ValueError(f"--norm: method {method!r} has linf only, got {given.norm!r}")
        options["norm"] = given.norm
    for name, option in OWN_OPTIONS.items():
        if (value := getattr(given, option)) is None:
            continue
        if name not in parameters:
            raise ValueError(f"--{option.replace('_', '-')}: method {method!r} has none")
        options[name] = value
    for text in given.method_option or []:
        name, text = _assigned(text)
        value = _value(text, whole=_counts(method, name))
        if name in options:
            raise ValueError(f"--method-option: {name} is given twice")
        options[name] = value
    return options


def _assigned(text: str) -> tuple[str, str]:
    """NAME and VALUE of NAME=VALUE."""
    name, equals, value = (part.strip() for part in text.partition("="))
    if not (name.isidentifier() and equals and value):
        raise ValueError(f"--method-option: expected NAME=VALUE, got {text!r}")
    if name in ("eps", "norm", *OWN_OPTIONS):
        option = OWN_OPTIONS.get(name, name).replace("_", "-")
        raise ValueError(f"--method-option: {name} has an option of its own, --{option}")
    return name, value


def _value(text: str, *, whole: bool) -> bool | int | float | str | Ramp:
    """True or false, a ramp, a number or a fraction; any other text as it is."""
    if text in ("true", "false"):
        return text == "true"
    if ramps.is_ramp(text):
        try:
            return ramps.ramp(text, whole=whole)
        except ValueError as error:
            raise ValueError(f"--method-option: {error}") from None
    with contextlib.suppress(ValueError):
        return ramps.number(text)
    return text


def _counts(method: str, name: str) -> bool:
    """Whether an option of the method or its attack is a whole number."""
    factory = getattr(methods, method.replace("-", "_"))
    known = {**inspect.signature(PGD).parameters, **inspect.signature(factory).parameters}
    return name in known and known[name].annotation in ("int", int)


def _optimisation(how: OptimisationOptions) -> dict[str, Any]:
    """The fields of ``Optimisation``, but for the precision, which the device has a say in."""
    given = asdict(how)
    del given["autocast"]
    alpha, names = given.pop("selectivity"), selectivity_layers(how)
    del given["selectivity_layers"]
    regularisers = () if alpha is None else (SelectivityRegulariser(alpha, layers=names),)
    return {**given, "regularisers": regularisers}


def selectivity_layers(how: OptimisationOptions) -> list[str] | None:
    """Names or patterns of the layers whose selectivity counts, None for every ReLU."""
    if how.selectivity_layers is None:
        return None
    return [name.strip() for name in how.selectivity_layers.split(",")]


def checked_radius(option: str, norm: str, eps: float | Ramp | None) -> float | Ramp:
    """The radius asked for, or the usual one of the norm; of linf 1 at most.

    Raises:
        ValueError: No such norm.
    """
    radius = eps if isinstance(eps, Ramp) else radius_of(norm, eps)
    largest = max(radius.start, radius.stop) if isinstance(radius, Ramp) else radius
    if norm == "linf" and largest > 1:
        raise typer.BadParameter(
            f"expected up to 1 in linf, a number or a fraction such as 8/255, got '{largest:g}'",
            param_hint=f"'{option}'",
        )
    return radius
