"""A caller's functions in words: the same ones for the same code, arguments and surroundings."""

from __future__ import annotations

import dis
import functools
import hashlib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from torch import Tensor, nn

from repsim_fast.data.fingerprint import digest_of

_LONGEST = 300  # characters of a description, of which there may be many in a header
_DIGITS = 8
_DEEPEST = 6  # of what a function holds and what that holds in turn
_ADDRESS = " at 0x"  # in the text of an object that does not say what it is


def describe(value: Any) -> str:
    """A text for an argument: that of a choice, or a function's name and a digest of what it does.

    The digest is of the function's code (of this version of Python), its defaults, the values that
    it takes from around it and the functions of its own module that it calls. Arguments of
    ``functools.partial`` are in the text; modules and tensors count with all their numbers, other
    objects with their own text and their attributes but for further objects.

    Example:
        >>> from repsim_fast.comparison.described import describe
        >>> one, two = (describe(lambda x, k=k: x + k) for k in (1, 2))
        >>> one.partition(" [")[0] == two.partition(" [")[0], one == two
        (True, False)
    """
    if isinstance(value, str):
        return value
    if not callable(value) and not isinstance(value, Mapping):
        return ", ".join(value)
    text = _Words().of(value)
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST - _DIGITS - 7]} ... [{_digest(text)}]"


def short_name(function: Callable[..., Any]) -> str:
    """A function's name alone, or an object's own text: the same in every version of the code."""
    if isinstance(function, functools.partial):
        return short_name(function.func)
    if hasattr(function, "__name__"):
        return str(function.__name__)
    text = repr(function)
    return type(function).__name__ if _ADDRESS in text else text


class _Words:
    """Values in words, one within another; a function is gone into once."""

    def __init__(self) -> None:
        self._within: list[object] = []
        self._functions: list[types.FunctionType] = []

    def of(self, value: Any) -> str:
        """A value in words."""
        if len(self._within) > _DEEPEST or any(value is outer for outer in self._within):
            return "..."
        self._within.append(value)
        try:
            return self._of(value)
        finally:
            self._within.pop()

    def _of(self, value: Any) -> str:
        if isinstance(value, functools.partial):
            named = [f"{name}={self.of(one)}" for name, one in sorted(value.keywords.items())]
            return f"partial({', '.join([*map(self.of, (value.func, *value.args)), *named])})"
        if isinstance(value, types.MethodType):
            return f"{self.of(value.__self__)}.{self.of(value.__func__)}"
        if isinstance(value, types.FunctionType):
            return self._function(value)
        if isinstance(value, nn.Module):
            held = digest_of([*value.parameters(), *value.buffers()])
            return f"{_name(type(value))} [{_digest(held + repr(value).partition(_ADDRESS)[0])}]"
        if isinstance(value, Tensor):
            return f"{value.dtype} {tuple(value.shape)} [{digest_of([value])[:_DIGITS]}]"
        if isinstance(value, np.ndarray) and value.dtype != object:
            raw = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()
            return f"{value.dtype} {value.shape} [{raw[:_DIGITS]}]"
        if isinstance(value, (list, tuple)):
            return f"{type(value).__name__}({', '.join(map(self.of, value))})"
        if isinstance(value, (set, frozenset)):
            return f"set({', '.join(sorted(map(self.of, value)))})"
        if isinstance(value, Mapping):
            return f"{{{', '.join(f'{self.of(k)}: {self.of(one)}' for k, one in value.items())}}}"
        if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
            wrapped = getattr(value, "__wrapped__", None)
            return _name(value) if wrapped is None else self.of(wrapped)
        return self._object(value)

    def _object(self, value: Any) -> str:
        text = repr(value)
        own = "" if _ADDRESS in text else text
        attributes = getattr(value, "__dict__", {})
        if own and not attributes:
            return own
        # What is an object in turn may be a state that changes as it is used.
        plain = {name: one for name, one in sorted(attributes.items()) if _is_plain(one)}
        return f"{own or _name(type(value))} [{_digest(self.of(plain))}]"

    def _function(self, value: types.FunctionType) -> str:
        if any(value is one for one in self._functions):
            return _name(value)
        self._functions.append(value)
        cells = zip(value.__code__.co_freevars, value.__closure__ or (), strict=True)
        held = {name: cell.cell_contents for name, cell in cells if _is_filled(cell)}
        around = {
            name: value.__globals__[name]
            for name in sorted(set(_globals_in(value.__code__)))
            if name in value.__globals__ and _counts(value.__globals__[name], value)
        }
        parts = (value.__defaults__, value.__kwdefaults__, held, around)
        words = [self._code(value.__code__), *map(self.of, parts)]
        return f"{_name(value)} [{_digest(' '.join(words))}]"

    def _code(self, code: types.CodeType) -> str:
        inner = [self._code(c) if isinstance(c, types.CodeType) else c for c in code.co_consts]
        about = code.co_argcount, code.co_kwonlyargcount, code.co_flags, code.co_names
        return f"{code.co_code.hex()} {self.of(inner)} {about} {code.co_varnames}"


def _is_plain(value: Any) -> bool:
    """Whether it is a value, or code: no object of another kind."""
    kinds = (int, float, complex, str, bytes, list, tuple, set, frozenset, Mapping, Tensor)
    of_code = (types.FunctionType, types.MethodType, functools.partial, nn.Module, type)
    return value is None or isinstance(value, (*kinds, *of_code, np.ndarray, np.generic))


def _counts(held: Any, by: types.FunctionType) -> bool:
    """Whether a global is a value, or code of the function's own module: others have versions."""
    if isinstance(held, (types.ModuleType, types.BuiltinFunctionType, type)):
        return False
    return not isinstance(held, types.FunctionType) or held.__module__ == by.__module__


def _is_filled(cell: types.CellType) -> bool:
    try:
        return cell.cell_contents is not cell
    except ValueError:
        return False


def _globals_in(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            yield instruction.argval
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _globals_in(constant)


def _name(value: Any) -> str:
    module, name = getattr(value, "__module__", None), value.__qualname__
    return f"{module}.{name}" if isinstance(module, str) and module != "builtins" else str(name)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:_DIGITS]
