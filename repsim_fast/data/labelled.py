"""What a network can be trained and evaluated on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from .loaded import LoadedBatches
from .mixed import Mixed
from .samples import Samples, check_range, check_types

LabelledImages = Samples | LoadedBatches | Mixed
"""In memory, in batches of their own, or two streams of these."""


def labelled(data: Any, name: str = "data") -> LabelledImages:
    """``data`` as labelled images.

    Args:
        data: An ImageData (``.images``, ``.labels``), a pair of tensors (images, labels), or a
            ``DataLoader`` or other iterable of batches (images, labels) with a length.
        name: What messages call it.

    Raises:
        TypeError: Anything else.
        ValueError: No samples, not one label for each image, or float images of another range.
    """
    if isinstance(data, Samples | LoadedBatches | Mixed):
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


def mixed(first: Any, second: Any, *, share: float = 0.5) -> Mixed:
    """Training data whose batches hold a fixed share of a second stream of images.

    Each batch of B images has round(share B) of ``second``, as labelled images with pseudo-labelled
    ones (Carmon et al., 2019). An epoch is one pass over ``first``; of ``second`` each epoch draws
    as many as it needs in a new random order, from the seed of the training, so that resuming is
    exact. Of a ``first`` that comes in batches of its own, each batch is added to.
    Where one of the two has soft labels, the classes of the other are probabilities of 0 and 1.

    Args:
        first: As ``train_data`` of ``training.train``; evaluation and detectors see it alone.
        second: As ``first``, images of the same shape and dtype.
        share: Of ``second`` in each batch, in (0, 1).

    Raises:
        ValueError: A share out of range, images of other shapes or dtypes.
        TypeError: As ``training.train``, or data that are mixed already.

    Example:
        >>> import torch
        >>> images, labels = torch.rand(20, 1, 8, 8), torch.zeros(20, dtype=torch.int64)
        >>> data = mixed((images[:8], labels[:8]), (images[8:], labels[8:]), share=0.75)

    References:
        Carmon et al., "Unlabeled data improves adversarial robustness", 2019.
    """
    if not 0 < share < 1:
        raise ValueError(f"share must lie in (0, 1), got {share}")
    one, other = labelled(first, "first"), labelled(second, "second")
    if isinstance(one, Mixed) or isinstance(other, Mixed):
        raise TypeError("first and second must be plain streams, got one that is mixed already")
    kinds = [_kind(stream) for stream in (one, other)]
    if kinds[0] != kinds[1]:
        raise ValueError(
            f"first and second must hold images of one kind, got {kinds[0]} in first "
            f"({one.description}) and {kinds[1]} in second ({other.description})"
        )
    return Mixed(one, other, share / (1 - share))


def _kind(stream: Samples | LoadedBatches) -> str:
    image, _ = stream.preview(torch.device("cpu"))
    return f"{tuple(image.shape[1:])} {str(image.dtype).removeprefix('torch.')}"


def _batches(data: tuple[Any, ...] | list[Any]) -> bool:
    return all(isinstance(part, tuple | list | Mapping) for part in data)


def _in_memory(images: Any, labels: Any, name: str) -> Samples:
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        raise TypeError(
            f"{name} must hold tensors, got {type(images).__name__} and {type(labels).__name__}"
        )
    check_types(name, images, labels)
    check_range(name, images)
    return Samples(images, labels)
