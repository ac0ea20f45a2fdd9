"""The layers of a model: their names and kinds, and how a user picks some of them."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import nn

from repsim_fast.capture.kinds import has_unknown_weights, layer_kind, parts
from repsim_fast.capture.roles import asks_for_role, find_roles, in_short, why_no_roles

Layer: TypeAlias = "str | int | nn.Module"
LayerSpec: TypeAlias = "Layer | Sequence[Layer] | Callable[[str, nn.Module], bool] | None"
"""Names, roles or ``fnmatch`` patterns of them, modules of the model, numbers among the layers of
the default (-1 the last), a predicate (name, module) -> bool, or None for the default."""

ROOT = "(model)"
"""Name of the model itself, whose output is that of the whole network."""


class LayerInfo(NamedTuple):
    """One layer that a model has.

    ``kind`` is None for layers outside the default selection, ``role`` for those that have none;
    ``hidden_states.0``, what the first block is given, has a line of its own.
    """

    name: str
    type: str
    kind: str | None
    shape: tuple[int, ...] | None = None
    role: str | None = None


class SelectedLayer(NamedTuple):
    """A module to hook.

    Attributes:
        module: The module.
        calls: Numbers of its calls that count; None: all of them.
        given: Whether what it is given counts, and not what it returns.
        block: The block of a transformer that it was chosen as a part of.
    """

    module: nn.Module
    calls: frozenset[int] | None = None
    given: bool = False
    block: nn.Module | None = None


class LayerTable(list[LayerInfo]):
    """A list of :class:`LayerInfo` that prints as a table."""

    def __str__(self) -> str:
        return self.table()

    def table(self, limit: int | None = None) -> str:
        """Lines of aligned columns, at most ``limit`` layers of them."""
        shown = self if limit is None or len(self) <= limit else self[:limit]
        rows = [
            (layer.name, layer.type, layer.kind or "-", _shape_text(layer.shape), layer.role or "")
            for layer in shown
        ]
        widths = [max((len(row[column]) for row in rows), default=0) for column in range(4)]
        lines = [
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, [*widths, 0], strict=True))
            for row in rows
        ]
        if len(shown) < len(self):
            lines.append(f"... and {len(self) - len(shown)} more (list_layers shows all)")
        return "\n".join(line.rstrip() for line in lines)


def _shape_text(shape: tuple[int, ...] | None) -> str:
    return "" if shape is None else " x ".join(map(str, shape))


def named_layers(model: nn.Module) -> dict[str, nn.Module]:
    """Every module that can be captured, by name, in the order of declaration.

    A module with several names has its first; the model itself is :data:`ROOT`, last. Scripted
    submodules run outside Python, where no hook can see them, and are left out, as are
    parametrizations, which return weights.
    """
    found = {
        # The name torch.compile gives what it wraps, which takes the place of the wrapper.
        name.replace("._orig_mod", ""): module
        for name, module in model.named_modules()
        if name
        and not isinstance(module, torch.jit.ScriptModule)
        and "parametrizations" not in name.split(".")
    }
    found[ROOT] = model
    return found


def layer_table(layers: dict[str, nn.Module]) -> LayerTable:
    """The layers as a table, without shapes."""
    default = _default_layers(layers)
    roles = find_roles(layers)
    returned = {place.layer: role for role, place in roles.items() if not place.given}
    given = {place.layer: role for role, place in roles.items() if place.given}
    table = LayerTable()
    for name, module in layers.items():
        if name in given:
            table.append(LayerInfo(given[name], f"given to {name}", None, None, given[name]))
        kind = layer_kind(module) if name in default else None
        table.append(LayerInfo(name, type(module).__name__, kind, None, returned.get(name)))
    return table


def modules_by_layer(model: nn.Module) -> dict[str, nn.Module]:
    """The module that is hooked for each name that a layer can have, without numbers of calls."""
    found = named_layers(model)
    return {role: place.module for role, place in find_roles(found).items()} | found


def select_layers(model: nn.Module, layers: LayerSpec = None) -> dict[str, SelectedLayer]:
    """The modules that ``layers`` asks for, by name, in the order of declaration.

    Patterns are matched against the whole name with ``fnmatch``, so ``*`` also crosses dots;
    :data:`ROOT` has to be asked for by its name. ``relu#2`` is the second call of ``relu`` alone.
    Where nothing matches, case does not matter. What is no module's name may be a role, see
    :func:`~repsim_fast.capture.roles.find_roles`; those come after the modules.

    Raises:
        ValueError: Nothing matches, or one of the names or patterns matches nothing; the message
            shows what there is.
        TypeError: ``layers`` is of another type.
    """
    found = named_layers(model)
    inner = {name: module for name, module in found.items() if name != ROOT}
    if layers is None:
        chosen = {n: SelectedLayer(m) for n, m in _default_layers(found).items()}
    elif callable(layers) and not isinstance(layers, nn.Module):  # a predicate
        chosen = {n: SelectedLayer(m) for n, m in inner.items() if layers(n, m)}
    else:
        chosen = _matching(found, inner, _patterns(found, layers))
    if not chosen:
        raise ValueError(
            f"layers: no layer of {type(model).__name__} matched. It has:\n"
            + layer_table(found).table(limit=60)
        )
    return chosen


def by_names(model: nn.Module, layers: LayerSpec) -> LayerSpec:
    """The same choice with names in place of modules and numbers.

    Raises:
        ValueError: A module that is none of the model's, or no such number.
        TypeError: ``layers`` is of another type.
    """
    if layers is None or isinstance(layers, str) or _is_predicate(layers):
        return layers
    return _patterns(named_layers(model), layers)


def _is_predicate(layers: object) -> bool:
    return callable(layers) and not isinstance(layers, nn.Module)


def _patterns(found: dict[str, nn.Module], layers: object) -> list[str]:
    one = isinstance(layers, (str, nn.Module)) or not isinstance(layers, Iterable)
    chosen: list[Any] = [layers] if one else list(layers)  # type: ignore[call-overload]
    return [_name_of(found, layer) for layer in chosen]


def _name_of(found: dict[str, nn.Module], layer: Any) -> str:
    """A name or pattern, of a module or number that of the layer."""
    if isinstance(layer, str):
        return layer
    if isinstance(layer, nn.Module):
        inner = getattr(layer, "_orig_mod", layer)  # compiled in place
        for name, module in found.items():
            if module is inner:
                return name
        kind = type(layer).__name__
        raise ValueError(f"layers: the module {kind} given is none of {type(found[ROOT]).__name__}")
    if isinstance(layer, Integral) and not isinstance(layer, bool):
        names, number = list(_default_layers(found)), int(layer)
        if not -len(names) <= number < len(names):
            raise ValueError(
                f"layers: numbers of {type(found[ROOT]).__name__} lie in {-len(names)} to "
                f"{len(names) - 1}, got {number}"
            )
        return names[number]
    raise TypeError(
        "layers must be names or patterns (str), modules or numbers of layers, a callable (name, "
        f"module) -> bool or None, got {layer!r}"
    )


def _default_layers(found: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Modules of a kind that are no parts of another, the model itself only if it is a layer."""
    model = found[ROOT]
    inside = set(map(id, _parts_of(found).values()))
    is_layer = len(found) == 1 or bool(parts(model, is_network=True))
    return {
        name: module
        for name, module in found.items()
        if layer_kind(module) is not None
        and id(module) not in inside
        and (name != ROOT or is_layer)
    }


def _parts_of(found: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """Layers that are only parts of another one, by name."""
    network = found[ROOT]
    inside = {id(part) for m in found.values() for part in parts(m, is_network=m is network)}
    return {name: module for name, module in found.items() if id(module) in inside}


def left_out_by_default(model: nn.Module) -> list[str]:
    """What the default selection leaves out although it has weights, and how to have it."""
    found = named_layers(model)
    inside = list(_parts_of(found))
    unknown = [name for name, module in found.items() if has_unknown_weights(module)]
    texts = []
    if inside:
        texts.append(
            f"{len(inside)} layers are left out that are parts of other layers, whose whole output "
            f"counts: {_some(inside)}"
        )
    if unknown:
        types = sorted({type(found[name]).__name__ for name in unknown})
        texts.append(
            f"{len(unknown)} layers with weights are left out because their types are not known "
            f"as layers ({', '.join(types)}): {_some(unknown)}"
        )
    return [f"{text}; name them by layers= to have them" for text in texts]


def _some(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:5])) + (", ..." if len(names) > 5 else "")


def _matching(
    found: dict[str, nn.Module], inner: dict[str, nn.Module], patterns: Iterable[str]
) -> dict[str, SelectedLayer]:
    calls: dict[str, frozenset[int] | None] = {}
    for pattern in patterns:
        names, call = _names_like(pattern, found, inner)
        roles = {} if names else find_roles(found)
        if roles:
            names, call = _names_like(pattern, roles, roles)
        if not names:
            raise ValueError(f"layers: {_why_nothing_matches(found, pattern)}")
        for name in names:
            before = calls.get(name, frozenset())
            calls[name] = None if before is None or call is None else before | {call}
    chosen = {name: SelectedLayer(found[name], calls[name]) for name in found if name in calls}
    if len(chosen) < len(calls):
        for name, role in find_roles(found).items():
            if name in calls:
                chosen[name] = SelectedLayer(role.module, calls[name], role.given, role.block)
    return chosen


def _names_like(
    pattern: str, exact: Mapping[str, object], names: Iterable[str]
) -> tuple[list[str], int | None]:
    """Names that a pattern matches, and the number of the call if it says one."""
    # An exact name first: names may contain the characters that patterns use.
    if pattern in exact:
        return [pattern], None
    name, _, call = pattern.rpartition("#")
    if name in exact and call.isdecimal():
        return [name], int(call)
    matching = fnmatch.filter(names, pattern)
    return matching or [n for n in names if fnmatch.fnmatchcase(n.lower(), pattern.lower())], None


def _why_nothing_matches(found: dict[str, nn.Module], pattern: str) -> str:
    modules = found[ROOT].named_modules(remove_duplicate=False)
    alias = next((module for name, module in modules if name == pattern), None)
    if first := next((name for name, module in found.items() if module is alias), None):
        return (
            f"{pattern!r} is the module {first!r} under another name; "
            f"{first + '#2'!r} is its second call"
        )
    roles = find_roles(found)
    near = difflib.get_close_matches(pattern, [*found, *roles], n=3, cutoff=0.5)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    if roles:
        hint += f" Its roles are {in_short(roles)}."
    elif asks_for_role(pattern):
        hint += f" It has no roles of a transformer: {why_no_roles(found)}."
    table = layer_table(found).table(limit=60)
    return f"{pattern!r} matched no layer.{hint} The model has:\n{table}"
