"""Tensors in what models take: alone, in mappings, tuples and lists, or in objects that move."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy


def map_tensors(function: Callable[[Tensor], Tensor], x: Any) -> Any:
    """The same with the function of every tensor; anything else as it is."""
    if isinstance(x, Tensor):
        return function(x)
    if isinstance(x, Mapping):
        return {key: map_tensors(function, value) for key, value in x.items()}
    if type(x) in (tuple, list):
        return type(x)(map_tensors(function, value) for value in x)
    if isinstance(x, tuple) and hasattr(x, "_fields"):
        return type(x)(*(map_tensors(function, value) for value in x))
    return x


def tensors_in(x: Any) -> Iterator[Tensor]:
    """The tensors, in order."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (Mapping, tuple, list)):
        for part in x.values() if isinstance(x, Mapping) else x:
            yield from tensors_in(part)


def to_device(x: Any, device: torch.device, *, copy: bool = False) -> Any:
    """The same on ``device``; with ``copy`` in memory of its own.

    Batches of other packages, such as graphs, move by their own ``to``, after their own ``clone``.
    """
    if not isinstance(x, (Tensor, Mapping, tuple, list)) and callable(getattr(x, "to", None)):
        clone = getattr(x, "clone", None)
        return (clone() if copy and callable(clone) else x).to(device)
    return map_tensors(lambda tensor: moved(tensor, device, copy=copy), x)


def moved(
    x: Tensor, device: torch.device, dtype: torch.dtype | None = None, *, copy: bool = False
) -> Tensor:
    """``x.to(device, dtype)``, without waiting for a copy to a GPU.

    A copy to the CPU is waited for: nobody else does before its numbers are read, and torch takes
    pinned memory for one that is not, which is empty until the GPU has come to it.
    """
    return x.to(device, dtype, non_blocking=device.type != "cpu", copy=copy)


def readable(x: Tensor) -> bool:
    """Whether it has numbers that can be looked at one by one."""
    return not (
        is_lazy(x) or x.is_quantized or x.is_nested or x.is_meta or x.layout != torch.strided
    )
