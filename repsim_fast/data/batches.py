"""One shape for every kind of data a user may hand in: batches of inputs and labels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, SequentialSampler

from repsim_fast.data import ImageData


class Batch(NamedTuple):
    """Inputs of n samples, a tensor (n, ...) or a mapping of them, and their labels (n,)."""

    x: Any
    y: Tensor | None
    n: int


class Feed(NamedTuple):
    """Batches to iterate over once, how many (None: unknown), and what they come from."""

    batches: Iterator[Batch]
    n_batches: int | None
    description: str


def open_data(data: Any, *, batch_size: int, passes: int, seed: int) -> Feed:
    """Make ``data`` a stream of batches.

    Args:
        data: ``ImageData``, a tensor (N, ...), a tuple of tensors (x, y), a ``Dataset`` (all of
            these are cut into batches of ``batch_size``), or a ``DataLoader`` or other iterable of
            batches, each x or (x, y), where x is a tensor or a mapping of tensors.
        batch_size: Samples in a batch, where ``data`` does not come in batches.
        passes: How often to go through the data; more than once in a new order each time.
        seed: Seed of these orders.

    Raises:
        ValueError: Empty data, no positive batch size or number of passes, x and y of different
            lengths, or several passes over batches that come in the same order each time.
        TypeError: ``data`` is nothing of the above, or ``seed`` no integer.
    """
    for argument, value in (("batch_size", batch_size), ("passes", passes)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{argument} must be a positive integer, got {value!r}")
    if not isinstance(seed, int):
        raise TypeError(f"seed must be an integer, got {type(seed).__name__}")
    if isinstance(data, Tensor):
        data = (data, None)
    if _is_pair(data):
        samples: int | None = _check_pair(*data)
        name = f"tensor of shape {tuple(data[0].shape)}"
    elif isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        samples = len(data)  # type: ignore[arg-type]
        kind = f"{data.name} {data.split}" if isinstance(data, ImageData) else type(data).__name__
        name = f"{kind}, {samples:,} samples"
    else:
        samples = None
        name = type(data).__name__
        _check_batched(data, passes)
    if samples == 0:
        raise ValueError("data is empty: there is no sample to compare on")

    generator = torch.Generator().manual_seed(seed)

    def all_passes() -> Iterator[Batch]:
        one_pass = partial(_one_pass, data, samples, batch_size, passes > 1, generator)
        items = chain.from_iterable(one_pass() for _ in range(passes))
        for number, item in enumerate(items):
            yield _as_batch(item, number)

    if samples is not None:
        n_batches: int | None = passes * -(-samples // batch_size)
    else:
        length = _length(data)
        n_batches = None if length is None else passes * length
    return Feed(all_passes(), n_batches, name)


def _length(data: Any) -> int | None:
    try:
        return len(data)
    except TypeError:  # a DataLoader has a length only if its data set has
        return None


def _is_pair(data: Any) -> bool:
    return (
        isinstance(data, tuple)
        and len(data) == 2
        and isinstance(data[0], Tensor)
        and (data[1] is None or isinstance(data[1], Tensor))
    )


def _check_pair(x: Tensor, y: Tensor | None) -> int:
    if x.ndim == 0 or (y is not None and (y.ndim == 0 or len(y) != len(x))):
        shape = None if y is None else tuple(y.shape)
        raise ValueError(
            "data must be (x, y) with one label for each sample, "
            f"got shapes {tuple(x.shape)} and {shape}"
        )
    return len(x)


def _check_batched(data: Any, passes: int) -> None:
    if not isinstance(data, Iterable) or isinstance(data, (Mapping, str)):
        raise TypeError(
            "data must be ImageData, a tensor, a tuple (x, y), a Dataset, a DataLoader or an "
            f"iterable of batches, got {type(data).__name__}"
            + (": a mapping is one batch, put it into a list" if isinstance(data, Mapping) else "")
        )
    shuffles = isinstance(data, DataLoader) and not (
        isinstance(data.sampler, SequentialSampler) or isinstance(data.dataset, IterableDataset)
    )
    if passes > 1 and not shuffles:
        raise ValueError(
            f"passes={passes} needs data that can be shuffled, and a {type(data).__name__} gives "
            "the same batches every time; pass the data set itself or a DataLoader with "
            "shuffle=True"
        )


def _one_pass(
    data: Any, samples: int | None, batch_size: int, shuffle: bool, generator: torch.Generator
) -> Iterable[Any]:
    if samples is None:
        batches: Iterable[Any] = data
        return batches
    if isinstance(data, ImageData):
        return data.batches(batch_size, shuffle=shuffle, generator=generator)
    if isinstance(data, Dataset):
        # A generator of its own also without shuffling: a DataLoader draws from the global one.
        return DataLoader(data, batch_size, shuffle=shuffle, generator=generator)
    x, y = data
    order = torch.randperm(samples, generator=generator).to(x.device) if shuffle else None
    return _slices(x, y, batch_size, order)


def _slices(
    x: Tensor, y: Tensor | None, batch_size: int, order: Tensor | None
) -> Iterator[tuple[Tensor, Tensor | None]]:
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        chosen = rows if order is None else order[rows]
        yield x[chosen], None if y is None else y[chosen]


def _as_batch(item: Any, number: int) -> Batch:
    x, y = item, None
    if isinstance(item, (tuple, list)) and len(item) in (1, 2):
        x, y = item[0], item[1] if len(item) == 2 else None
    leading = next(iter(x.values()), None) if isinstance(x, Mapping) else x
    if not isinstance(leading, Tensor) or not (y is None or isinstance(y, Tensor)):
        raise TypeError(
            f"data: batch {number} must be x or (x, y), tensors or x a mapping of tensors, "
            f"got {_outline(item)}"
        )
    if leading.ndim == 0:
        raise ValueError(f"data: batch {number} must hold samples (n, ...), got a single number")
    return Batch(x, y, len(leading))


def _outline(item: Any) -> str:
    if isinstance(item, (tuple, list)):
        return f"{type(item).__name__}({', '.join(type(part).__name__ for part in item)})"
    return type(item).__name__


def to_device(x: Any, device: torch.device, *, copy: bool = False) -> Any:
    """``x``, a tensor or a mapping of them, on ``device``; anything else as it is."""
    if isinstance(x, Mapping):
        return {key: to_device(value, device, copy=copy) for key, value in x.items()}
    return x.to(device, non_blocking=True, copy=copy) if isinstance(x, Tensor) else x
