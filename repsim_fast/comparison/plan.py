"""What a comparison runs: the measure, named models, their layers and inputs, equal runs once."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from repsim_fast._core import headers
from repsim_fast._core.cached import cached
from repsim_fast._core.model_state import check_hookable, unwrap
from repsim_fast.capture import LayerSpec, by_names, select_layers
from repsim_fast.comparison.described import describe
from repsim_fast.comparison.recording import Recording, is_recording
from repsim_fast.data.fingerprint import digest_of
from repsim_fast.similarity import Measure, get_measure
from repsim_fast.similarity.base.estimator import Estimator
from repsim_fast.similarity.base.measure import as_measure, options

Member: TypeAlias = "nn.Module | Recording"

Place: TypeAlias = "str | os.PathLike[str]"

Models: TypeAlias = "Sequence[Member | Place] | Mapping[str, Member | Place] | Place"
"""Modules to run, and recordings or the paths of their folders."""

Transform: TypeAlias = Callable[[Any, "Tensor | None"], Any]
"""From inputs and labels to the inputs that a model sees in their place."""

Forward: TypeAlias = Callable[[nn.Module, Any], Any]
"""Runs a model on a batch as the data give it."""


@dataclass(eq=False)
class Run:
    """One forward pass a batch: a model, its inputs and its layers.

    Attributes:
        hooked: Names of the modules whose outputs are watched.
        forward: What runs the model on a batch; None: the model itself on its inputs.
        rows: The accumulator's number of each layer, in order of execution.
        skipped: Why layers are left out, by name.
        taken: Layers of the current batch so far.
        running: Whether this is its own forward pass, the only one whose activations count.
        changing: Names of buffers that its passes change.
    """

    model: nn.Module
    name: str
    layers: LayerSpec
    transform: Transform | None
    hooked: tuple[str, ...]
    forward: Forward | None = None
    rows: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    taken: set[str] = field(default_factory=set)
    running: bool = False
    changing: list[str] = field(default_factory=list)

    @cached
    def weights(self) -> str:
        """Digest of the model's numbers when it was first asked for: a pass over all of them."""
        return digest_of([*self.model.parameters(), *self.model.buffers()])

    @property
    def kept(self) -> dict[str, int]:
        """Rows of the layers that every batch brought."""
        return {name: row for name, row in self.rows.items() if name not in self.skipped}


@dataclass(frozen=True, eq=False)
class Plan:
    """The runs to do, and which of them each model's layers come from.

    Attributes:
        models: All models, by name.
        runs: Different runs, in the order in which they are done.
        run_of: The run of each model, by name.
        settings: The choices for each model, as plain data.
    """

    models: Mapping[str, nn.Module]
    runs: Sequence[Run]
    run_of: Mapping[str, Run]
    settings: Mapping[str, Any]

    @property
    def n_layers(self) -> int:
        """Layers that are hooked, of all runs; one that is called twice counts once."""
        return sum(len(run.hooked) for run in self.runs)

    @property
    def transforms(self) -> bool:
        """Whether any model sees other inputs than the data."""
        return any(run.transform is not None for run in self.runs)


def choose_measure(measure: str | Measure[Any], estimator: Estimator | None) -> Measure[Any]:
    """The measure of a name, or the one given, with an estimator if one was asked for.

    Raises:
        TypeError: Neither name nor measure.
        ValueError: No such measure; an estimator for one that has none, or another one than a
            measure that was given has.
    """
    chosen = as_measure(measure, {})
    if estimator is None:
        return chosen
    name, own = chosen.info.name, options(chosen).get("estimator")
    if own is None:
        raise ValueError(f"estimator: expected None for {name}, which has none, got {estimator!r}")
    if isinstance(measure, str):
        return get_measure(measure, estimator=estimator)
    if own != estimator:
        raise ValueError(f"estimator: expected {own!r}, that of {measure!r}, got {estimator!r}")
    return chosen


def choose_measures(measure: Any, estimator: Estimator | None) -> dict[str, Measure[Any]]:
    """One measure or several by their names, with the estimator where they have one.

    Raises:
        TypeError: Neither name nor measure.
        ValueError: No such measure, none at all, or an estimator for measures that have none.
    """
    if not isinstance(measure, (list, tuple)):
        one = choose_measure(measure, estimator)
        return {one.info.name: one}
    if not measure:
        raise ValueError("measure: expected at least one, got none")
    found: dict[str, Measure[Any]] = {}
    chosen = [as_measure(one, {}) for one in measure]
    have = [one for one in chosen if "estimator" in options(one)]
    if estimator is not None and not have:
        raise ValueError(f"estimator: none of the measures has one, got {estimator!r}")
    for given, one in zip(measure, chosen, strict=True):
        name, number = one.info.name, 2
        while name in found:
            name, number = f"{one.info.name} {number}", number + 1
        found[name] = choose_measure(given, estimator if one in have else None)
    return found


def make_plan(
    models: Mapping[str, nn.Module],
    *,
    layers: Any,
    inputs: Any,
    forward: Any = None,
    paired: bool = False,
) -> Plan:
    """The runs of a comparison; models that are the same on the same inputs share one.

    Args:
        models: Models by name.
        layers: As for ``compare``: one choice for all models, or one for each.
        inputs: As for ``compare``: one transform for all models, or one for each.
        forward: The same.
        paired: Whether each model has data of its own, so that none share a run.

    Raises:
        ValueError: No layer matched, choices that do not fit the models, or a lazy model that was
            never run.
        TypeError: A choice of another type.
    """
    names = tuple(models)
    chosen_layers = _layers_of(models, layers)
    transforms = per_model("inputs", inputs, names, callable)
    forwards = per_model("forward", forward, names, callable)
    runs: dict[tuple[Any, ...], Run] = {}
    run_of: dict[str, Run] = {}
    for name, model in models.items():
        _check_has_values(name, model)
        try:
            chosen_layers[name] = by_names(model, chosen_layers[name])
            chosen = select_layers(model, chosen_layers[name])
        except ValueError as error:
            raise ValueError(f"model {name!r}: {error}") from None
        run = Run(model, name, chosen_layers[name], transforms[name], tuple(chosen), forwards[name])
        own = id(transforms[name]), id(forwards[name])
        same = (id(model), *own, tuple(chosen.items()), paired and name)
        run_of[name] = runs.setdefault(same, run)
    settings = {
        "models": {name: _describe_model(model) for name, model in models.items()},
        "inputs": {name: describe(t) for name, t in transforms.items() if t is not None},
        "layers": {name: describe(c) for name, c in chosen_layers.items() if c is not None},
        "forward": {name: describe(f) for name, f in forwards.items() if f is not None},
    }
    return Plan(models, list(runs.values()), run_of, settings)


def models_and_data(
    models: Models | Member, model_b: Any, data: Any, names: Sequence[str] | None
) -> tuple[dict[str, Member], Any]:
    """Named models, unwrapped, and recordings; and the data, from either form of the call of
    ``compare``. Recordings alone need no data: None.

    Raises:
        TypeError: Models or data of another type, or missing.
        ValueError: No model, or names that do not fit.
        FileNotFoundError: A path without a recording.
    """
    if _is_member(model_b, known=data is not None or isinstance(models, _PLACES)):
        if not isinstance(models, (nn.Module, Recording, *_PLACES)):
            raise TypeError("models must be one module when model_b is given, got several")
        models = [models, model_b]
    elif model_b is not None and data is not None:
        raise TypeError(f"model_b must be a torch.nn.Module, got {type(model_b).__name__}")
    else:
        data = model_b if data is None else data
    found = named_members(models, names)
    if data is None and not all(isinstance(model, Recording) for model in found.values()):
        raise TypeError("data is missing: compare(model_a, model_b, data) or compare(models, data)")
    return found, data


_PLACES = (str, os.PathLike)


def _is_member(value: Any, *, known: bool) -> bool:
    """Whether an argument that may be data is a model; ``known``: a path can be no data here."""
    if isinstance(value, _PLACES):
        return known or is_recording(value)
    return isinstance(value, (nn.Module, Recording))


def named_members(models: Models | Member, names: Sequence[str] | None) -> dict[str, Member]:
    """Models, unwrapped, and recordings, opened, by name.

    Raises:
        TypeError: Models of another type.
        ValueError: No model, or names that do not fit.
        FileNotFoundError: A path without a recording.
    """
    if isinstance(models, Mapping):
        names = names or tuple(models)
    found = [_member(model) for model in _as_list(models)]
    if not found:
        raise ValueError("models must be at least one, got none")
    return dict(zip(_names(found, names), found, strict=True))


def _member(model: Any) -> Member:
    """A module, unwrapped, or a recording, opened where its path is given."""
    if isinstance(model, Recording):
        return model
    if isinstance(model, os.PathLike) or (isinstance(model, str) and os.path.isdir(model)):
        return Recording.open(model)
    if isinstance(model, str):
        raise TypeError(
            f"model must be a torch.nn.Module, got str {model!r}, which is no folder of a recording"
        )
    return check_hookable(unwrap(check_hookable(model)))


def _as_list(models: Any) -> list[Any]:
    if isinstance(models, (nn.Module, Recording, *_PLACES)):
        return [models]
    if not isinstance(models, Iterable) or isinstance(models, Tensor):
        raise TypeError(
            "models must be a torch.nn.Module, or a sequence or mapping of them, "
            f"got {type(models).__name__}"
        )
    return list(models.values() if isinstance(models, Mapping) else models)


def _names(models: Sequence[Member], names: Sequence[str] | None) -> list[str]:
    if names is not None:
        if len(names) != len(models) or len(set(names)) != len(names) or isinstance(names, str):
            raise ValueError(
                f"names must be {len(models)} different ones, one for each model, got {names!r}"
            )
        for name in names:
            headers.text()(name, "names")
        return list(names)
    own = [m.name if isinstance(m, Recording) else type(m).__name__ for m in models]
    return [
        name if own.count(name) == 1 else f"{name} {own[:i].count(name) + 1}"
        for i, name in enumerate(own)
    ]


def _layers_of(models: Mapping[str, nn.Module], layers: Any) -> dict[str, Any]:
    """The choice of layers of each model; of modules alone, those that it has."""
    several = not isinstance(layers, (str, nn.Module, Mapping)) and isinstance(layers, Iterable)
    modules = list(layers) if several else [layers]
    if not modules or not all(isinstance(module, nn.Module) for module in modules):
        return per_model("layers", layers, tuple(models), is_layer_choice)
    found: dict[str, Any] = {}
    left = {id(module) for module in modules}
    for name, model in models.items():
        own = {id(module) for module in model.modules()}
        found[name] = [m for m in modules if id(getattr(m, "_orig_mod", m)) in own or id(m) in own]
        left -= set(map(id, found[name]))
        if not found[name]:
            raise ValueError(f"layers: none of the modules given is one of model {name!r}")
    if left:
        raise ValueError(f"layers: {len(left)} of the modules given are in none of the models")
    return found


def is_layer_choice(value: Any) -> bool:
    """Whether it is a choice of layers, and no sequence of one for each model."""
    if isinstance(value, str) or callable(value) or not isinstance(value, Iterable):
        return True
    return all(isinstance(v, (str, int, nn.Module)) for v in value)


def per_model(
    argument: str, value: Any, names: Sequence[str], is_one: Callable[[Any], bool]
) -> dict[str, Any]:
    """An argument that is given once for all models, or for each, by order or by name."""
    if isinstance(value, Mapping):
        if unknown := [name for name in value if name not in names]:
            raise ValueError(f"{argument}: no model is named {unknown[0]!r}; there are {names}")
        return {name: value.get(name) for name in names}
    if value is None or is_one(value):
        return dict.fromkeys(names, value)
    if not isinstance(value, Sequence):
        raise TypeError(
            f"{argument} must be one for all models, or a sequence or mapping of one for each, "
            f"got {value!r}"
        )
    if len(value) != len(names):
        raise ValueError(
            f"{argument} must be one for all models or one for each of {len(names)}, "
            f"got {len(value)}"
        )
    return dict(zip(names, value, strict=True))


def _check_has_values(name: str, model: nn.Module) -> None:
    for weight, value in itertools.chain(model.named_parameters(), model.named_buffers()):
        if is_lazy(value):
            raise ValueError(
                f"model {name!r}: {weight!r} has no value yet: run the model once first"
            )


def _describe_model(model: nn.Module) -> str:
    return f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters"
