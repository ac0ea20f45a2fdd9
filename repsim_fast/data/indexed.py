"""Data whose samples can be read in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .image_data import ImageData

Read = Callable[[Sequence[Tensor]], Iterator[Any]]
"""Rows of one batch after the other -> batches, x or (x, y)."""


@dataclass(frozen=True)
class Indexed:
    """``n`` samples that ``read`` gives in any order, and what they come from."""

    n: int
    description: str
    read: Read


def indexed(data: Any) -> Indexed | None:
    """``data`` as samples in any order, or None for what comes in batches of its own.

    Args:
        data: A tensor (N, ...), a tuple of tensors (x, y), ``ImageData``, a ``Dataset``, or any
            object with a length whose items, by number, are single samples (as ``datasets`` of the
            Hugging Face hub are).

    Raises:
        ValueError: x and y of different lengths.
    """
    if isinstance(data, Tensor):
        return _of_tensors(data, None)
    if is_pair(data):
        return _of_tensors(*data)
    if isinstance(data, ImageData):
        name = f"{data.name} {data.split}, {len(data):,} samples"
        return Indexed(len(data), name, lambda batches: map(data.take, batches))
    if isinstance(data, (Sequence, Mapping, DataLoader, IterableDataset)):
        return None
    if isinstance(data, Dataset) or (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        return Indexed(
            len(data),
            f"{type(data).__name__}, {len(data):,} samples",
            lambda batches: iter(_loader(data, batches)),
        )
    return None


def is_pair(data: Any) -> bool:
    """Whether data is a tuple (x, y) of tensors, or with None for y."""
    return (
        isinstance(data, tuple)
        and len(data) == 2
        and isinstance(data[0], Tensor)
        and (data[1] is None or isinstance(data[1], Tensor))
    )


def _of_tensors(x: Tensor, y: Tensor | None) -> Indexed:
    if x.ndim == 0 or (y is not None and (y.ndim == 0 or len(y) != len(x))):
        shape = None if y is None else tuple(y.shape)
        raise ValueError(
            "data must be (x, y) with one label for each sample, "
            f"got shapes {tuple(x.shape)} and {shape}"
        )

    def read(batches: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor | None]]:
        for rows in batches:
            yield x[rows.to(x.device)], None if y is None else y[rows.to(y.device)]

    return Indexed(len(x), f"tensor of shape {tuple(x.shape)}", read)


def _loader(data: Any, batches: Sequence[Tensor]) -> DataLoader[Any]:
    # A generator of its own: a DataLoader draws from the global one otherwise.
    return DataLoader(
        data,
        batch_sampler=[rows.tolist() for rows in batches],
        generator=torch.Generator().manual_seed(0),
    )
