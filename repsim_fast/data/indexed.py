"""Data whose samples can be read in any order."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from .collating import collate
from .image_data import ImageData
from .items import with_tensors

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
        data: A tensor or array (N, ...), a tuple (x, y) of them, where y may be a list of anything,
            and further parts have a number or name for each sample; a mapping of them by the names
            of a model's arguments; ``ImageData``, a ``Dataset``, or any object with a length whose
            items, by number, are single samples (as ``datasets`` of the Hugging Face hub are).

    Raises:
        ValueError: x and y of different lengths.
    """
    if isinstance(data, (np.ndarray, tuple, Mapping)):
        data = with_tensors(data)
    if isinstance(data, Tensor):
        return _of_tensors(data)
    if is_pair(data):
        return _of_tensors(data[0], (data[1],))
    if isinstance(data, Mapping) and data and all(map(_is_of_samples, data.values())):
        return _of_mapping(data)
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
    """Whether data is a tuple (x, y) of samples and labels, or with None for y, or (x, y, what
    else there is of each sample)."""
    if not (isinstance(data, tuple) and len(data) > 1 and isinstance(data[0], Tensor)):
        return False
    if len(data) == 2:
        return data[1] is None or isinstance(data[1], Tensor) or _has_length(data[1], data[0])
    of_samples = [part for part in data[1:] if not (isinstance(part, Tensor) and part.ndim != 1)]
    return len(of_samples) == len(data) - 1 and all(_has_length(p, data[0]) for p in of_samples)


def _has_length(part: Any, x: Tensor) -> bool:
    """Whether there is something for each sample."""
    return isinstance(part, (Tensor, list, tuple)) and x.ndim > 0 and len(part) == len(x)


def _is_of_samples(values: Any) -> bool:
    return isinstance(values, Tensor) and values.ndim > 0


def _of_tensors(x: Tensor, labels_of_all: tuple[Any] | None = None) -> Indexed:
    """Samples alone, or with what stands beside them, labels or None."""
    y = None if labels_of_all is None else labels_of_all[0]
    if isinstance(y, Tensor) and (x.ndim == 0 or y.ndim == 0 or len(y) != len(x)):
        raise ValueError(
            "data must be (x, y) with one label for each sample, "
            f"got shapes {tuple(x.shape)} and {tuple(y.shape)}"
        )
    if x.ndim == 0:
        raise ValueError("data must hold samples (N, ...), got a single number")

    def labels(rows: Tensor) -> Any:
        if isinstance(y, (list, tuple)):
            return [y[row] for row in rows.tolist()]
        return None if y is None else y[rows.to(y.device)]

    def read(batches: Sequence[Tensor]) -> Iterator[Any]:
        for rows in batches:
            some = x[rows.to(x.device)]
            yield some if labels_of_all is None else (some, labels(rows))

    return Indexed(len(x), f"tensor of shape {tuple(x.shape)}", read)


def _of_mapping(data: Mapping[str, Tensor]) -> Indexed:
    lengths = {name: len(values) for name, values in data.items()}
    if len({*lengths.values()}) > 1:
        raise ValueError(f"data: a mapping must have the same samples in all, got {lengths}")

    def read(batches: Sequence[Tensor]) -> Iterator[dict[str, Tensor]]:
        for rows in batches:
            yield {name: values[rows.to(values.device)] for name, values in data.items()}

    names = ", ".join(map(str, data))
    return Indexed(next(iter(lengths.values())), f"tensors {names}", read)


def _loader(data: Any, batches: Sequence[Tensor]) -> DataLoader[Any]:
    # A generator of its own: a DataLoader draws from the global one otherwise.
    return DataLoader(
        data,
        batch_sampler=[rows.tolist() for rows in batches],
        collate_fn=collate,
        generator=torch.Generator().manual_seed(0),
    )
