"""Commands whose options are grouped in dataclasses."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from typing import Any, get_type_hints


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """``command`` for typer: a parameter whose type is a dataclass stands for options, its fields.

    Example:
        >>> import inspect
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Size:
        ...     width: int = 1
        ...     height: int = 2
        >>> def area(size: Size, name: str = "area") -> None:
        ...     print(name, size.width * size.height)
        >>> command = grouped(area)
        >>> list(inspect.signature(command).parameters)
        ['width', 'height', 'name']
        >>> command(width=3, height=4, name="a")
        a 12
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, Any] = {}
    options: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if is_dataclass(kind):
            groups[name] = kind
            options += _options(kind)
        else:
            keyword = inspect.Parameter.KEYWORD_ONLY
            options.append(parameter.replace(annotation=kind, kind=keyword))

    @functools.wraps(command)
    def run(**given: Any) -> None:
        values = {
            group: kind(**{field.name: given.pop(field.name) for field in fields(kind)})
            for group, kind in groups.items()
        }
        command(**given, **values)

    shown: Any = run
    shown.__signature__ = inspect.Signature(options)
    shown.__annotations__ = {option.name: option.annotation for option in options}
    del shown.__wrapped__
    return run


def _options(kind: Any) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=field.default,
            annotation=hints[field.name],
        )
        for field in fields(kind)
    ]
