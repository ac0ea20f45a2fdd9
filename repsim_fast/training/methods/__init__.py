"""Training methods by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .adversarial import pgd, standard
from .base import Method

_METHODS: dict[str, Callable[..., Method]] = {"standard": standard, "pgd": pgd}


def available() -> list[str]:
    """Names that ``build`` knows."""
    return sorted(_METHODS)


def build(name: str, **options: Any) -> Method:
    """Training method by name, with the options of its factory.

    Raises:
        ValueError: Unknown name, or an option that the method does not have.
    """
    if name not in _METHODS:
        raise ValueError(f"method must be one of {available()}, got {name!r}")
    factory = _METHODS[name]
    try:
        inspect.signature(factory).bind(**options)
    except TypeError as error:
        raise ValueError(f"method {name!r}: {error}") from None
    return factory(**options)


__all__ = ["Method", "available", "build", "pgd", "standard"]
