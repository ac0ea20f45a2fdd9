"""What a network can be trained and evaluated on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from torch import Tensor

from .loaded import LoadedBatches
from .samples import Samples, check_types

LabelledImages = Samples | LoadedBatches
"""In memory, or in batches of their own."""


def labelled(data: Any, name: str = "data") -> LabelledImages:
    """``data`` as labelled images.

    Args:
        data: An ImageData (``.images``, ``.labels``), a pair of tensors (images, labels), or a
            ``DataLoader`` or other iterable of batches (images, labels) with a length.
        name: What messages call it.

    Raises:
        TypeError: Anything else.
        ValueError: No samples, or not one label for each image.
    """
    if isinstance(data, Samples | LoadedBatches):
        return data
    if hasattr(data, "images") and hasattr(data, "labels"):
        return _in_memory(data.images, data.labels, name)
    if isinstance(data, tuple | list) and len(data) == 2 and not _batches(data):
        images, labels = data
        return _in_memory(images, labels, name)
    if not isinstance(data, Iterable) or isinstance(data, Mapping | str | Tensor):
        raise TypeError(
            f"{name} must have .images and .labels (repsim_fast.data.ImageData), be a pair of "
            "tensors (images, labels), or an iterable of such pairs (a DataLoader), got "
            f"{type(data).__name__}"
        )
    if isinstance(data, Iterator):
        raise TypeError(f"{name} must be an iterable that begins anew each time, got an iterator")
    try:
        LoadedBatches(data, name).__len__()
    except TypeError:
        raise TypeError(
            f"{name} must have a length, its number of batches, got a {type(data).__name__} "
            "without: how far training is would be unknown"
        ) from None
    return LoadedBatches(data, name)


def _batches(data: tuple[Any, ...] | list[Any]) -> bool:
    return all(isinstance(part, tuple | list) for part in data)


def _in_memory(images: Any, labels: Any, name: str) -> Samples:
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        raise TypeError(
            f"{name} must hold tensors, got {type(images).__name__} and {type(labels).__name__}"
        )
    check_types(name, images, labels)
    return Samples(images, labels)
