"""Attributes that are computed when they are first asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

Value = TypeVar("Value")


class cached(Generic[Value]):
    """``functools.cached_property`` without its lock.

    Until Python 3.12 that lock is one for all objects of a class: threads wait for each other's
    computations, and a process forked during one waits for ever. Without it, two threads that ask
    one object at once may both compute.
    """

    def __init__(self, compute: Callable[[Any], Value]) -> None:
        self._compute = compute
        self.__doc__ = compute.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> cached[Value]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Value: ...
    def __get__(self, instance: object | None, owner: type) -> cached[Value] | Value:
        if instance is None:
            return self
        # Found there before this descriptor from then on.
        value = instance.__dict__[self._name] = self._compute(instance)
        return value
