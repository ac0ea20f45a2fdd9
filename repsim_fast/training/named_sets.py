"""Names of the accuracies of several evaluation sets and attacks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from .history import Epoch

HELD_OUT = "validation"
"""Name of the training images that are held out, beside other sets."""

_UNNAMED_ATTACK = "attacked"
_TAKEN = {entry.name for entry in fields(Epoch)}


def accuracy_name(images: str, attack: str | None) -> str | None:
    """Name of an accuracy; None where neither set nor attack has one.

    Args:
        images: Name of the set, empty without one.
        attack: Name of the attack, empty without one; None for the images as they are.

    Example:
        >>> accuracy_name("dark", None), accuracy_name("dark", "pgd"), accuracy_name("dark", "")
        ('dark', 'dark/pgd', 'dark/attacked')
        >>> accuracy_name("", "pgd"), accuracy_name("", None)
        ('pgd', None)
    """
    if attack is None:
        return images or None
    if not images:
        return attack or None
    return f"{images}/{attack or _UNNAMED_ATTACK}"


def check_names(argument: str, named: Any) -> None:
    """Names of sets or attacks, where ``named`` is a mapping, that tell their accuracies apart.

    Raises:
        TypeError: A name that is no text.
        ValueError: An empty one, one with a slash, one that the record of an epoch has.
    """
    for name in named if isinstance(named, Mapping) else ():
        if not isinstance(name, str):
            raise TypeError(f"{argument}: names must be text, got {name!r}")
        if not name or "/" in name or name in _TAKEN:
            raise ValueError(
                f"{argument}: names must not be empty, have no slash and be no entry of a record "
                f"(such as 'loss'), got {name!r}"
            )
