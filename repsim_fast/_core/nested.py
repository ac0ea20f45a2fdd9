"""Tensors in what models take: alone, or in mappings, tuples and lists."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor


def map_tensors(function: Callable[[Tensor], Tensor], x: Any) -> Any:
    """The same with the function of every tensor; anything else as it is."""
    if isinstance(x, Tensor):
        return function(x)
    if isinstance(x, Mapping):
        return {key: map_tensors(function, value) for key, value in x.items()}
    if type(x) in (tuple, list):
        return type(x)(map_tensors(function, value) for value in x)
    return x


def tensors_in(x: Any) -> Iterator[Tensor]:
    """The tensors, in order."""
    if isinstance(x, Tensor):
        yield x
    elif isinstance(x, (Mapping, tuple, list)):
        for part in x.values() if isinstance(x, Mapping) else x:
            yield from tensors_in(part)


def to_device(x: Any, device: torch.device, *, copy: bool = False) -> Any:
    """The same on ``device``; with ``copy`` in memory of its own."""
    return map_tensors(lambda tensor: tensor.to(device, non_blocking=True, copy=copy), x)
