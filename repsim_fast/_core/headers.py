"""What the headers of files may hold: every file from outside is held against a schema first.

A schema is a function (value, where) that raises ValueError with the place, what was wanted and
what is there. Nothing behind this border need ask again what kind of thing it was given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

Schema = Callable[[Any, str], None]

LONGEST_TEXT = 10_000
# Of what is free in form, such as settings: far beyond what is written, far below what hurts.
DEEPEST = 20
_FREE_TEXT = 1_000_000
_SHOWN = 60


def parsed(text: str | bytes | None, schema: Schema, where: str) -> Any:
    """JSON that fits a schema.

    Raises:
        ValueError: No JSON, or another form.
    """
    try:
        value = json.loads(text or "null")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: expected JSON, got {_short(text)} ({error})") from None
    schema(value, where)
    return value


def text(longest: int = LONGEST_TEXT) -> Schema:
    """Text that can be written to a file, of so many characters at most."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, str) or len(value) > longest:
            raise _wrong(where, f"a text of at most {longest} characters", value)
        if not value.isascii() and any(0xD800 <= ord(c) < 0xE000 for c in value):
            raise _wrong(where, "a text of whole characters", ascii(value))

    return check


def whole(low: int, high: int = 2**53) -> Schema:
    """A whole number in [low, high]."""

    def check(value: Any, where: str) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise _wrong(where, f"a whole number in [{low}, {high}]", value)

    return check


def number(low: float = -math.inf, high: float = math.inf) -> Schema:
    """A number in [low, high], or NaN."""

    def check(value: Any, where: str) -> None:
        if (
            isinstance(value, bool)
            or not isinstance(value, (int, float))
            or value < low
            or value > high
            or (isinstance(value, int) and abs(value) > 2**53)
        ):
            raise _wrong(where, f"a number in [{low}, {high}]", value)

    return check


def truth(value: Any, where: str) -> None:
    """True or false."""
    if not isinstance(value, bool):
        raise _wrong(where, "true or false", value)


def optional(schema: Schema) -> Schema:
    """None, or what the schema wants."""
    return lambda value, where: None if value is None else schema(value, where)


def listed(schema: Schema, longest: int = 1_000_000) -> Schema:
    """A list of such values."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, list) or len(value) > longest:
            raise _wrong(where, f"a list of at most {longest}", value)
        for index, entry in enumerate(value):
            schema(entry, f"{where}[{index}]")

    return check


def named(schema: Schema) -> Schema:
    """Such values by name."""

    def check(value: Any, where: str) -> None:
        if not isinstance(value, Mapping):
            raise _wrong(where, "values by name", value)
        for name, entry in value.items():
            text()(name, where)
            shown = name if name.isidentifier() and len(name) <= _SHOWN else _short(name)
            schema(entry, f"{where}.{shown}")

    return check


def record(needed: Mapping[str, Schema], further: Mapping[str, Schema] | None = None) -> Schema:
    """Values by name: the needed ones, of the further ones those that are there, any others."""

    def check(value: Any, where: str) -> None:
        named(free)(value, where)
        if missing := sorted(needed.keys() - value.keys()):
            raise ValueError(f"{where}: its header lacks {', '.join(missing)}")
        for name, schema in {**needed, **(further or {})}.items():
            if name in value:
                schema(value[name], f"{where}: {name}")

    return check


def free(value: Any, where: str, depth: int = 0) -> None:
    """Anything that JSON can hold, and that can be written and shown again."""
    if depth > DEEPEST:
        raise ValueError(f"{where}: expected at most {DEEPEST} levels, got more")
    if isinstance(value, str):
        text(_FREE_TEXT)(value, where)
    elif isinstance(value, list):
        for entry in value:
            free(entry, where, depth + 1)
    elif isinstance(value, Mapping):
        for name, entry in value.items():
            text()(name, where)
            free(entry, where, depth + 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        whole(-(2**63), 2**64)(value, where)


def _wrong(where: str, wanted: str, got: Any) -> ValueError:
    return ValueError(f"{where}: expected {wanted}, got {_short(got)}")


def _short(value: Any) -> str:
    """A few characters of it, whatever its size: a whole repr of a large one would take long."""
    if isinstance(value, (str, bytes)):
        return ascii(value[:_SHOWN]) + ("..." if len(value) > _SHOWN else "")
    if isinstance(value, (list, Mapping)):
        return f"a {type(value).__name__} of {len(value)}"
    if isinstance(value, int) and abs(value) > 2**63:
        return "a larger number"
    return repr(value)[:_SHOWN]
