"""Image files in one folder for each class."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from repsim_fast._core.files import open_regular

from .decoding import LARGEST_FILE, Encoded, decode_images
from .image_data import ImageData
from .request import Request

_SUFFIXES = {
    *(".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".pnm", ".ppm"),
    *(".tif", ".tiff", ".webp"),
}
# Whatever their case; the first one that is there.
_SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "test": ("test", "validation", "val", "valid", "testing"),
}
# By these alone folders are known for those of splits: "valid" and "invalid" are classes, too.
_MARKS = {*_SPLIT_FOLDERS["train"], *_SPLIT_FOLDERS["test"]} - {"valid"}
_SHOWN = 5


def load_folder(path: Path, request: Request) -> ImageData:
    """Read PATH/SPLIT/CLASS/*, or PATH/CLASS/* whichever the split if there are no split folders.

    Folders of splits are train or training, and test, validation, val, valid or testing, in any
    case. Classes are the folders, sorted by name; images may lie deeper inside them. What is
    hidden, by a dot at the start of its name, is left out, and links to folders inside classes are
    not followed. With split folders the training classes number the labels, so that a test class
    keeps its number. RGB.

    Raises:
        ValueError: no folder of the split, no image, a test class unknown to training, or an
            unreadable image.
    """
    folder, classes = _find(path, request.split)
    files, labels = [], []
    for label, name in enumerate(classes):
        found = _images(folder / name)
        files += found
        labels += [label] * len(found)
    _warn_of_empty(folder, {classes[label] for label in labels})
    if not files:
        raise ValueError(f"no image file in the class folders of {folder}")
    rows = request.rows(len(files))
    encoded = _read([files[row] for row in rows])
    return ImageData(
        images=decode_images(encoded, len(rows), size=request.size, progress=request.progress),
        labels=torch.from_numpy(np.array(labels, np.int64)[rows]),
        classes=tuple(classes),
        name=path.resolve().name,
        split=request.split,
    )


def _find(path: Path, split: str) -> tuple[Path, list[str]]:
    if not path.is_dir():
        raise ValueError(f"expected a folder with one for each class, got the file {path}")
    inside = _folders(path)
    if not any(name.lower() in _MARKS for name in inside):
        if not inside:
            raise ValueError(f"{path} has no class folder")
        _warn_of_splits(path, inside)
        return path, inside
    own = _of_split(split, inside)
    if own is None:
        wanted = " or ".join(_SPLIT_FOLDERS[split])
        raise ValueError(f"no folder {wanted} in {path}, which has {', '.join(inside)}")
    classes = _folders(path / own)
    if train := _of_split("train", inside):
        known = _folders(path / train)
        if unknown := set(classes) - set(known):
            raise ValueError(f"{path / own}: no training class {', '.join(sorted(unknown))}")
        classes = known
    return path / own, classes


def _of_split(split: str, folders: list[str]) -> str | None:
    """The folder of a split."""
    lower = {name.lower(): name for name in reversed(folders)}
    return next((lower[name] for name in _SPLIT_FOLDERS[split] if name in lower), None)


def _warn_of_splits(path: Path, classes: list[str]) -> None:
    """Say where folders taken for classes are likely to be splits, or to have some."""
    shared = _folders(path / classes[0])
    if len(classes) < 2 or len(shared) < 2:
        return
    for name in classes:
        if _folders(path / name) != shared or any(map(_is_image, (path / name).iterdir())):
            return
    warnings.warn(
        f"{path}: {_some(classes)} are taken for the classes, and each has the same folders "
        f"{_some(shared)}; folders of splits are called train and test, with a folder for each "
        "class in them",
        stacklevel=2,
    )


def _warn_of_empty(folder: Path, found: set[str]) -> None:
    """Say which class folders have no image, as those of other kinds of files."""
    if found and (empty := [name for name in _folders(folder) if name not in found]):
        warnings.warn(
            f"{folder}: no image in {_some(empty)} (files that end in "
            f"{', '.join(sorted(_SUFFIXES))} are read)",
            stacklevel=2,
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:_SHOWN]) + ", ..." * (len(names) > _SHOWN)


def _folders(path: Path) -> list[str]:
    return sorted(
        entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _images(folder: Path) -> list[Path]:
    found = []
    for place, inside, files in os.walk(folder):
        inside[:] = [name for name in inside if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(filter(_is_image, found))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _SUFFIXES


def _read(files: list[Path]) -> Iterator[Encoded]:
    for file in files:
        yield Encoded(_bytes(file), str(file))


def _bytes(file: Path) -> bytes:
    try:
        with open_regular(file) as stream:
            content = stream.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            raise OSError(f"it has more than {LARGEST_FILE >> 20} MiB")
        return content
    except OSError as error:
        raise ValueError(f"{file}: cannot read the image: {error}") from error
