"""Names that were meant: without regard to case, and the nearest ones in messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

_SHOWN = 8


def among(what: str, name: str, known: Iterable[str]) -> str:
    """The known name that ``name`` is but for case.

    Args:
        what: Beginning of the message, such as "there is no measure".
        name: As someone wrote it.
        known: The names there are.

    Raises:
        ValueError: It is none; the message has the nearest ones, or some.

    Example:
        >>> among("there is no fruit", "Apple", ["apple", "pear"])
        'apple'
        >>> among("there is no fruit", "aple", ["apple", "pear"])
        Traceback (most recent call last):
        ValueError: there is no fruit 'aple'; did you mean 'apple'? There are apple, pear
    """
    names = list(known)
    if name in names:
        return name
    alike = [one for one in names if one.lower() == name.lower()]
    if len(alike) == 1:
        return alike[0]
    raise ValueError(f"{what} {name!r};{did_you_mean(name, names)} {listed(names)}")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question with the nearest names, after a space; empty where none is near."""
    lower = {one.lower(): one for one in known}
    near = [lower[key] for key in difflib.get_close_matches(name.lower(), lower)]
    return f" did you mean {' or '.join(map(repr, near))}?" if near else ""


def listed(known: Iterable[str]) -> str:
    """What there is, or some of it."""
    names = list(known)
    return f"There are {', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''}"
