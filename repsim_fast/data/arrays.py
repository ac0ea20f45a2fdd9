"""Files of arrays by the names of a model's arguments, such as tokens and their mask."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from repsim_fast._core.checks import as_tensor
from repsim_fast._core.files import open_regular
from repsim_fast._core.tensor_files import read_tensors

from .request import sample_rows

SUFFIXES = (".npz", ".safetensors")
_SHOWN = 8


def load_arrays(
    path: str | os.PathLike[str], *, limit: int | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """Read arrays of the same samples, which a model takes as arguments by their names.

    Args:
        path: "FILE.npz" of ``numpy.savez``, or "FILE.safetensors". Nothing is unpickled.
        limit: Keep at most this many samples, drawn by ``seed``, in the order of the file.
        seed: Which samples ``limit`` keeps.

    Returns:
        Each array (N, ...) by its name, for ``compare`` and ``record``.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, or has arrays not of numbers or not of the same samples.

    Example:
        >>> from pathlib import Path
        >>> import numpy as np
        >>> from repsim_fast import data
        >>> Path("out").mkdir(exist_ok=True)
        >>> ids = np.array([[5, 3, 0], [7, 2, 4]])
        >>> np.savez("out/tokens.npz", input_ids=ids, attention_mask=ids != 0)
        >>> tokens = data.load_arrays("out/tokens.npz")
        >>> tokens["attention_mask"].sum(1)
        tensor([2, 3])
    """
    place = Path(path).expanduser()
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1 or None, got {limit}")
    if place.suffix not in SUFFIXES:
        raise ValueError(f"path must end in {' or '.join(SUFFIXES)}, got {str(path)!r}")
    arrays = _of_numpy(place) if place.suffix == ".npz" else read_tensors(place)[1]
    lengths = {name: len(array) if array.ndim else None for name, array in arrays.items()}
    if len({*lengths.values()}) != 1 or None in lengths.values():
        some = ", ".join(f"{name} {tuple(arrays[name].shape)}" for name in list(arrays)[:_SHOWN])
        raise ValueError(
            f"{place}: expected arrays of the same samples (N, ...), got {some or 'none'}"
            + ", ..." * (len(arrays) > _SHOWN)
        )
    rows = torch.from_numpy(sample_rows(len(next(iter(arrays.values()))), limit, seed))
    return {name: array[rows] for name, array in arrays.items()}


def read_npz(
    path: Path, choose: Callable[[Sequence[str]], Iterable[str]] | None = None
) -> dict[str, npt.NDArray[Any]]:
    """Arrays of a ``.npz`` file by name; ValueError if it is none.

    ``choose`` is given the names of its arrays and says which are read; default all.
    """
    try:
        with open_regular(path) as file:
            held = np.load(file, allow_pickle=False)
            if not isinstance(held, np.lib.npyio.NpzFile):
                raise ValueError("it has one array without a name")
            names = held.files
            chosen = names if choose is None else choose(names)
            return {name: held[name] for name in chosen}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(f"{path} is not a readable .npz file of numbers: {error}") from error


def _of_numpy(path: Path) -> dict[str, Tensor]:
    arrays = {name: as_tensor(array) for name, array in read_npz(path).items()}
    for name, array in arrays.items():
        if not isinstance(array, Tensor):
            raise ValueError(f"{path}: expected numbers, got {name} of {array.dtype}")
    return arrays
