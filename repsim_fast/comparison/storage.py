"""Files of results: arrays as tensors of a safetensors file, all else as JSON in its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repsim_fast._core.files import replacing
from repsim_fast.comparison.grid import Array

_FORMAT = "repsim_fast.SimilarityResult"
_FORMAT_VERSION = 3  # 1 had value and standard_error alone, 2 neither chance level nor notes
_ARRAYS = ("value", "standard_error", "chance", "hsic", "left_out")


def write(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> Path:
    """Write the fields of a result, whole or not at all.

    Arrays that are None are left out; of the symmetric sums of HSIC one triangle is written.

    Raises:
        OSError: The place cannot be written to.
    """
    from safetensors.numpy import save_file

    arrays = {name: fields[name] for name in _ARRAYS if fields[name] is not None}
    if "hsic" in arrays:
        arrays["hsic"] = _triangles(arrays["hsic"])
    others = {name: value for name, value in fields.items() if name not in _ARRAYS}
    metadata = {
        "format": _FORMAT,
        "format_version": str(_FORMAT_VERSION),
        "result": json.dumps(others, ensure_ascii=False),
    }
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with replacing(path) as temporary:
        save_file(contiguous, temporary, metadata)
    return Path(path)


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields that :func:`write` wrote, as far as the file's version has them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, damaged, or of a later version of the format.
    """
    from safetensors import SafetensorError, safe_open

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {str(path)!r}")
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != _FORMAT:
                raise ValueError("it was not written by SimilarityResult.save")
            if int(metadata["format_version"]) > _FORMAT_VERSION:
                raise ValueError("it was written by a later version of repsim_fast")
            fields: dict[str, Any] = json.loads(metadata["result"])
            names = set(file.keys()) & set(_ARRAYS)
            fields |= {name: file.get_tensor(name) for name in names}
        if "hsic" in fields:
            fields["hsic"] = _symmetric(fields["hsic"], len(fields["value"]))
        fields["models"] = tuple(fields["models"])
        fields["layers"] = tuple(map(tuple, fields["layers"]))
        fields["group_samples"] = tuple(fields.get("group_samples", ()))
        fields["notes"] = tuple(fields.get("notes", ()))
        fields.setdefault("chance_note", f"not in a file of format {metadata['format_version']}")
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise unreadable(path, error) from error
    return fields


def unreadable(path: str | os.PathLike[str], error: Exception) -> ValueError:
    """What to raise for a file that is no result."""
    return ValueError(f"cannot load a result from {str(path)!r}: {error}")


def _triangles(
    symmetric: Array,  # (G, L, L)
) -> Array:
    """(G, L(L+1)/2), row by row."""
    rows, columns = np.tril_indices(symmetric.shape[-1])
    packed: Array = symmetric[:, rows, columns]
    return packed


def _symmetric(
    triangles: Array,  # (G, L(L+1)/2)
    size: int,
) -> Array:
    """(G, L, L)."""
    rows, columns = np.tril_indices(size)
    matrices = np.empty((len(triangles), size, size))
    matrices[:, rows, columns] = matrices[:, columns, rows] = triangles
    return matrices
