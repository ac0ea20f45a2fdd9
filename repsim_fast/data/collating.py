"""Samples of a data set, of any structure, put together to a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from repsim_fast._core.pixels import unit_range

from .items import with_tensors

_DEEP = ("I", "I;16", "I;16B", "I;16L", "F")  # modes of pictures of more than 8 bits


def collate(samples: Sequence[Any]) -> Any:
    """One batch of samples: as torch's ``default_collate``, and what that refuses.

    Pictures become tensors (C, H, W) in [0, 1], lists of numbers (tokens of the Hugging Face hub's
    data sets) rows of a tensor. What is not of one shape for all samples, such as boxes, pictures
    of several sizes or texts, stays a list with an entry for each sample.

    Args:
        samples: Tensors, arrays, pictures, numbers, texts, or mappings, tuples and lists of them.

    Raises:
        ValueError: A picture of more than 8 bits, whose range is not known.
    """
    first = samples[0]
    if isinstance(first, Mapping):
        keys = [key for key in first if all(key in sample for sample in samples)]
        return {key: collate([sample[key] for sample in samples]) for key in keys}
    if isinstance(first, (tuple, list)) and not _all_numbers(first):
        if len({len(sample) for sample in samples}) > 1:
            return list(samples)
        parts = [collate(part) for part in zip(*samples, strict=True)]
        return type(first)(*parts) if hasattr(first, "_fields") else parts
    found = [_as_tensor(sample) for sample in samples]
    if all(isinstance(one, Tensor) for one in found) and len({one.shape for one in found}) == 1:
        return torch.stack(found)
    return found


def _all_numbers(value: Any) -> bool:
    """Whether it is a number, or lists of them, one or more; a tuple's parts are no one thing."""
    if isinstance(value, list):
        return bool(value) and all(map(_all_numbers, value))
    return isinstance(value, Real)


def _as_tensor(sample: Any) -> Any:
    """A picture, array or numbers as a tensor; anything else as it is."""
    if isinstance(sample, Image.Image):
        return _of_picture(sample)
    if isinstance(sample, float):  # in double precision, as default_collate has it
        return torch.tensor(sample, dtype=torch.float64)
    if isinstance(sample, (int, list)) and _all_numbers(sample):
        try:
            return torch.tensor(sample)
        except ValueError:  # rows of different lengths
            return sample
    return with_tensors(sample)


def _of_picture(picture: Image.Image) -> Tensor:
    if picture.mode in _DEEP:
        raise ValueError(
            f"data: expected pictures of 8 bits a channel, got mode {picture.mode!r}; turn them "
            "into tensors (C, H, W) in [0, 1] by a transform of the data set"
        )
    if picture.mode in ("1", "P", "CMYK", "YCbCr", "HSV", "LAB"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    pixels = np.array(picture)
    pixels = pixels[:, :, None] if pixels.ndim == 2 else pixels
    return unit_range(torch.from_numpy(pixels).permute(2, 0, 1))
