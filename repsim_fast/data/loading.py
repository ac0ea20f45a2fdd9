"""One function for every image source."""

from __future__ import annotations

import os
from pathlib import Path

from .cifar10 import load_cifar10
from .digits import load_digits
from .folder import load_folder
from .image_data import ImageData
from .labelled_npz import load_npz
from .parquet import load_parquet
from .request import Request

_READERS = {"cifar10": load_cifar10, "folder": load_folder, "npz": load_npz}


def load(
    spec: str | os.PathLike[str],
    split: str,
    *,
    size: int | None = None,
    limit: int | None = None,
    seed: int = 0,
    progress: bool = False,
) -> ImageData:
    """Read one split of an image set into memory.

    Args:
        spec: where the images are:
            "digits": embedded handwritten digits, 1x8x8, with a fixed split;
            a path: parquet files as on the Hugging Face hub, either a folder with train-* and
            test-* (or validation-*) files, in it or in the one folder in it that has them, or one
            file; grey images become RGB;
            "cifar10:PATH": the folder torchvision downloads (cifar-10-batches-py or its parent);
            "folder:PATH": image files PATH/SPLIT/CLASS/*, or PATH/CLASS/* for every split; a
            photograph's mark of how it was held (EXIF) is not looked at, as by torchvision;
            "npz:FILE": arrays train_images and train_labels, test_images and test_labels, as of
            MedMNIST, x_train and y_train and so on, as of Keras, or images and labels for every
            split; images uint8, with or without channels, first or last.
        split: "train" or "test".
        size: side in pixels to bring every image to: the shorter side resized (bilinear,
            antialiased), then the centre cut out. None keeps the images as they are, which
            must then have one size.
        limit: keep at most this many images, drawn by `seed`, in file order.
        seed: which images `limit` keeps; the split never depends on it.
        progress: show a progress bar while images are decoded.

    Returns:
        The images in file order (in a folder: class by class, so shuffle the batches).

    Raises:
        ValueError: an unknown split, a missing or unreadable file, an unreadable image or a
            wrong label (with file and row), or images of different sizes without `size`.

    Example:
        >>> from repsim_fast import data
        >>> data.load("digits", "train", limit=100)
        ImageData(digits train: 100 images 1x8x8, 10 classes)
    """
    request = Request(split, size, limit, seed, progress)
    text = os.fspath(spec)
    if text == "digits":
        return load_digits(request)
    kind, colon, path = text.partition(":")
    if colon and kind in _READERS:
        return _READERS[kind](_existing(path), request)
    return load_parquet(_existing(text), request)


def _existing(text: str) -> Path:
    path = Path(text).expanduser()
    if not text or not path.exists():  # that of no name would be the current folder
        raise ValueError(
            f"no file or folder {text!r}; a data set is 'digits', a path with parquet files, "
            "'cifar10:PATH', 'folder:PATH' or 'npz:FILE'"
        )
    return path
