"""Image files in one folder for each class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from repsim_fast._core.files import open_regular

from .decoding import LARGEST_FILE, Encoded, decode_images
from .image_data import ImageData
from .request import Request

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "validation", "val")}


def load_folder(path: Path, request: Request) -> ImageData:
    """Read PATH/SPLIT/CLASS/*, or PATH/CLASS/* whichever the split if there are no split folders.

    Classes are the folders, sorted by name; images may lie deeper inside them. What is hidden, by
    a dot at the start of its name, is left out, and links to folders inside classes are not
    followed. With split folders
    the training classes number the labels, so that a test class keeps its number. RGB.

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
    inside = _folders(path)
    if not any(name in inside for names in _SPLIT_FOLDERS.values() for name in names):
        if not inside:
            raise ValueError(f"{path} has no class folder")
        return path, inside
    own = next((name for name in _SPLIT_FOLDERS[split] if name in inside), None)
    if own is None:
        wanted = " or ".join(_SPLIT_FOLDERS[split])
        raise ValueError(f"no folder {wanted} in {path}, which has {', '.join(inside)}")
    classes = _folders(path / own)
    if "train" in inside:
        known = _folders(path / "train")
        if unknown := set(classes) - set(known):
            raise ValueError(f"{path / own}: no training class {', '.join(sorted(unknown))}")
        classes = known
    return path / own, classes


def _folders(path: Path) -> list[str]:
    return sorted(
        entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )


def _images(folder: Path) -> list[Path]:
    found = []
    for place, inside, files in os.walk(folder):
        inside[:] = [name for name in inside if not name.startswith(".")]
        found += [Path(place, name) for name in files if not name.startswith(".")]
    return sorted(path for path in found if path.suffix.lower() in _SUFFIXES)


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
