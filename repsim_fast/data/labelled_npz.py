"""Images with labels as NumPy's ``savez`` keeps them: MedMNIST's files, Keras's, one's own."""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from .arrays import read_npz
from .decoding import resize_images
from .image_data import ImageData
from .request import Request

# Names of images and labels, with and without a split before or behind it.
_NAMES = (("images", "labels"), ("x", "y"), ("data", "labels"), ("data", "targets"))
_CLASSES = ("classes", "class_names", "label_names")
_CHANNELS = (1, 3)

_Arrays = dict[str, npt.NDArray[Any]]


def load_npz(path: Path, request: Request) -> ImageData:
    """Read one split of a .npz file.

    Its arrays are ``train_images`` and ``train_labels``, ``test_images`` and ``test_labels``, or
    ``x_train`` and ``y_train`` and so on; ``images`` and ``labels`` (``x`` and ``y``, ``data`` and
    ``targets``) are every split. Images are uint8 (N, H, W), (N, H, W, C) or (N, C, H, W) with 1 or
    3 channels, labels whole numbers (N,) or (N, 1). Classes are named by an array ``classes`` of
    texts, or by their numbers, up to the largest label of all splits.

    Raises:
        ValueError: No such arrays, or of another form.
    """
    arrays = read_npz(path, partial(_needed, split=request.split))
    images, labels = _of_split(arrays, request.split, path)
    pixels = _channels_first(arrays[images], f"{path}: {images}")
    numbers = _whole(arrays[labels], f"{path}: {labels}")
    if len(numbers) != len(pixels):
        raise ValueError(f"{path}: {len(pixels)} {images}, but {len(numbers)} {labels}")
    rows = request.rows(len(numbers))
    return ImageData(
        images=resize_images(torch.from_numpy(pixels[rows]), request.size),
        labels=torch.from_numpy(numbers[rows].astype(np.int64)),
        classes=_classes(arrays, path),
        name=path.stem,
        split=request.split,
    )


def _pairs(split: str) -> list[tuple[str, str]]:
    """Names of images and labels of a split, those of it alone first."""
    own = [(f"{split}_{x}", f"{split}_{y}") for x, y in _NAMES]
    own += [(f"{x}_{split}", f"{y}_{split}") for x, y in _NAMES]
    return [*own, *_NAMES]


def _present(names: Collection[str], split: str) -> list[tuple[str, str]]:
    return [pair for pair in _pairs(split) if all(name in names for name in pair)]


def _needed(names: Collection[str], split: str) -> set[str]:
    """Of the split its images and labels, of every split the labels, which name the classes; all
    where the split is missing, to say what there is."""
    if not (own := _present(names, split)):
        return set(names)
    labels = {pair[1] for of in ("train", "test") for pair in _present(names, of)}
    return {*own[0], *labels, *(set(_CLASSES) & set(names))}


def _of_split(arrays: _Arrays, split: str, path: Path) -> tuple[str, str]:
    if present := _present(arrays, split):
        return present[0]
    there = ", ".join(f"{name} {array.shape}" for name, array in list(arrays.items())[:8])
    raise ValueError(
        f"{path}: expected arrays {split}_images and {split}_labels, x_{split} and y_{split}, or "
        f"images and labels, got {there or 'none'}"
    )


def _channels_first(images: npt.NDArray[Any], what: str) -> npt.NDArray[np.uint8]:
    if images.dtype != np.uint8:
        raise ValueError(f"{what}: expected uint8 in [0, 255], got {images.dtype}")
    if images.ndim == 3:
        return images[:, None]
    if images.ndim != 4:
        wanted = "(N, H, W), (N, H, W, C) or (N, C, H, W)"
        raise ValueError(f"{what}: expected {wanted}, got shape {images.shape}")
    first, last = (images.shape[axis] in _CHANNELS for axis in (1, 3))
    if first == last:
        why = "either may be the channels" if first else "neither has 1 or 3 channels"
        raise ValueError(f"{what}: shape {images.shape}, the second or the last size: {why}")
    return images if first else np.ascontiguousarray(images.transpose(0, 3, 1, 2))


def _whole(labels: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise ValueError(
            f"{what}: expected one whole number for each image, got {labels.dtype} of shape "
            f"{labels.shape}"
        )
    return labels


def _classes(arrays: _Arrays, path: Path) -> tuple[str, ...]:
    for name in _CLASSES:
        if name in arrays and arrays[name].dtype.kind == "U":
            return tuple(str(one) for one in arrays[name].ravel())
    labels = [
        _whole(arrays[pair[1]], f"{path}: {pair[1]}")
        for split in ("train", "test")
        for pair in _pairs(split)
        if pair[1] in arrays
    ]
    return tuple(map(str, range(1 + max(int(some.max(initial=0)) for some in labels))))
