"""Buffers of models, such as statistics of batch norms, with the values that they had.

They change in eval mode, too: a norm may be written so that it always trains.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from .model_state import modules_of


@contextlib.contextmanager
def buffers_kept(models: Iterable[nn.Module]) -> Iterator[None]:
    """Buffers with the same values afterwards as before."""
    kept = KeptBuffers(models)
    try:
        yield
    finally:
        kept.put_all_back()


class KeptBuffers:
    """The models' buffers as they are now."""

    def __init__(self, models: Iterable[nn.Module]) -> None:
        self._kept = [
            _Kept(module, name)
            for module in modules_of(models)
            for name, buffer in module._buffers.items()
            if buffer is None or not is_lazy(buffer)  # lazy: without a value yet
        ]

    def put_all_back(self) -> None:
        """Give all of them the values that they had."""
        for one in self._kept:
            one.put_back()

    def put_changed_back(self) -> None:
        """Those that were seen to change, which takes next to no time where none does."""
        for one in self._kept:
            if one.has_changed():
                one.put_back()

    def look(self) -> list[str]:
        """Names of those that have other values now.

        A change that torch does not count, as by ``.data``, is seen here alone; from then on such
        a buffer counts as changed.
        """
        return list(dict.fromkeys(one.name for one in self._kept if one.differs()))


class _Kept:
    """A buffer of a module, and its value."""

    def __init__(self, module: nn.Module, name: str) -> None:
        self.name = f"{type(module).__name__}.{name}"
        self._module, self._key = module, name
        self._buffer = module._buffers[name]
        self._value = None if self._buffer is None else self._buffer.clone()
        self._version = _version(self._buffer)
        self._counted = self._buffer is None or self._version is not None

    def has_changed(self) -> bool:
        """Whether it is another tensor, or was written to since it was put back."""
        if self._module._buffers.get(self._key) is not self._buffer or not self._counted:
            return True
        return self._buffer is not None and self._buffer._version != self._version

    def differs(self) -> bool:
        """Whether it has another value."""
        now = self._module._buffers.get(self._key)
        if now is None or self._value is None:
            return now is not self._value
        if _same(now, self._value):
            return False
        if not self.has_changed():
            self._counted = False
        return True

    def put_back(self) -> None:
        """The tensor and the value that it had."""
        if self._buffer is not None and self._value is not None:
            _restore(self._buffer, self._value)
            self._version = _version(self._buffer)
        self._module._buffers[self._key] = self._buffer


def _version(tensor: torch.Tensor | None) -> int | None:
    """How often it was written to, None where torch does not count."""
    return None if tensor is None or tensor.is_inference() else tensor._version


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape:
        return False
    return bool(((one == other) | ((one != one) & (other != other))).all())


def _restore(buffer: torch.Tensor, value: torch.Tensor) -> None:
    if buffer.is_inference():  # writable within inference mode only
        with torch.inference_mode():
            buffer.copy_(value)
    else:
        # Through .data: a graph that the caller still holds must not see a new version.
        buffer.data.copy_(value)
