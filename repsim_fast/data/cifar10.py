"""CIFAR-10 as its author published it for Python and torchvision downloads it."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from repsim_fast._core.files import open_regular

from .decoding import LARGEST_FILE, resize_images
from .image_data import ImageData
from .request import Request

_FOLDER = "cifar-10-batches-py"
_FILES = {"train": [f"data_batch_{k}" for k in range(1, 6)], "test": ["test_batch"]}
_SHAPE = (3, 32, 32)


class _Array:
    """Stands for numpy's class of arrays, which could be called for one of any size."""


def _reconstruct(*_: Any) -> npt.NDArray[Any]:
    """The empty array that a pickled one starts as; its state brings shape and bytes, which fit."""
    return np.empty(0, np.uint8)


# All a pickled uint8 array asks for; the rest of the files is plain data. Reading one can call
# nothing but these. numpy has renamed its module since, the published files have the old name.
_ALLOWED = {
    ("numpy", "ndarray"): _Array,
    ("numpy", "dtype"): np.dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _reconstruct,
}


def load_cifar10(path: Path, request: Request) -> ImageData:
    """Read one split of CIFAR-10 from `cifar-10-batches-py` or the folder that holds it.

    The files are pickles, read by an unpickler that knows arrays and plain data only.

    Raises:
        ValueError: a file is missing, unreadable, or holds anything else.

    References:
        Krizhevsky, "Learning multiple layers of features from tiny images", 2009.
    """
    folder = path / _FOLDER if (path / _FOLDER).is_dir() else path
    images, labels = [], []
    for file in (folder / name for name in _FILES[request.split]):
        content = _read(file)
        batch, batch_labels = content.get("data"), content.get("labels", ())
        if not isinstance(batch, np.ndarray) or batch.dtype != np.uint8 or batch.ndim != 2:
            raise ValueError(f"{file}: 'data' must be a two-dimensional uint8 array")
        if batch.shape[1] != np.prod(_SHAPE):
            raise ValueError(f"{file}: 'data' must have 3072 columns, got {batch.shape[1]}")
        numbers = isinstance(batch_labels, list) and all(isinstance(k, int) for k in batch_labels)
        if not numbers or len(batch_labels) != len(batch):
            raise ValueError(f"{file}: 'labels' must be a list of {len(batch)} numbers")
        images.append(batch.reshape(-1, *_SHAPE))
        labels.extend(batch_labels)
    rows = request.rows(len(labels))
    chosen = torch.from_numpy(np.concatenate(images)[rows])
    return ImageData(
        images=resize_images(chosen, request.size),
        labels=torch.tensor(labels, dtype=torch.int64)[rows],
        classes=_class_names(folder / "batches.meta"),
        name="cifar10",
        split=request.split,
    )


# The one in Python: the compiled one makes room for as many entries as a file of a few bytes says.
class _PlainUnpickler(pickle._Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is not allowed")
        return _ALLOWED[module, name]


def _class_names(file: Path) -> tuple[str, ...]:
    names = _read(file).get("label_names")
    if not isinstance(names, list):
        raise ValueError(f"{file}: 'label_names' must be a list, got {type(names).__name__}")
    return tuple(str(name) for name in names)


def _read(file: Path) -> dict[str, Any]:
    try:
        with open_regular(file) as stream:
            raw = stream.read(LARGEST_FILE + 1)
        if len(raw) > LARGEST_FILE:
            raise ValueError(f"it has more than {LARGEST_FILE >> 20} MiB")
        # Python 2 wrote the published files; latin1 keeps its byte strings as they are.
        content = _PlainUnpickler(io.BytesIO(raw), encoding="latin1").load()
    except FileNotFoundError:
        raise ValueError(f"there is no {file.name} in {file.parent}") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise ValueError(f"cannot read the CIFAR-10 file {file}: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file}: must hold a dictionary, got {type(content).__name__}")
    return content
