"""Files of results: arrays as tensors of a safetensors file, all else as JSON in its metadata."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from repsim_fast._core import headers
from repsim_fast._core.tensor_files import read_metadata, read_tensors, write_tensors
from repsim_fast.comparison.grid import Array

FILE_NAME = "result.safetensors"
"""Of a result in a folder with other files."""
_FORMAT = "repsim_fast.SimilarityResult"
# 1 had value and standard_error alone, 2 neither chance level nor notes, 3 knew samples and weights
# by a part of their numbers.
_FORMAT_VERSION = 4
_ARRAYS = ("value", "standard_error", "chance", "hsic", "left_out")
_COUNT = headers.whole(0)
_NAMES = headers.listed(headers.text())
_SCHEMA = headers.record(
    {
        "models": _NAMES,
        "layers": headers.listed(_NAMES),
        "measure": headers.text(200),
        "estimator": headers.text(),
        "n_samples": _COUNT,
        "n_batches": _COUNT,
    },
    {
        "settings": headers.named(headers.free),
        "versions": headers.named(headers.text()),
        "seconds": headers.named(headers.number(0)),
        "group_samples": headers.listed(headers.whole(1)),
        "no_error": headers.text(),
        "notes": _NAMES,
        "chance_note": headers.text(),
        "order_digest": headers.text(16),
        "sample_digests": headers.listed(headers.text(16)),
        "undefined": headers.named(headers.named(headers.text())),
    },
)


def write(path: str | os.PathLike[str], fields: Mapping[str, Any]) -> Path:
    """Write the fields of a result, whole or not at all.

    Arrays that are None are left out; of the symmetric sums of HSIC one triangle is written.

    Raises:
        OSError: The place cannot be written to.
    """
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
    write_tensors(path, contiguous, metadata, "numpy")
    return Path(path)


def is_result(path: Path) -> bool:
    """Whether a file is one of a result, whole or partial."""
    try:
        return read_metadata(path).get("format") == _FORMAT
    except (ValueError, OSError):
        return False


def folders(place: Path) -> list[Path]:
    """The folders of results that a folder stands for: itself, or those of each measure inside."""
    if (place / FILE_NAME).is_file():
        return [place]
    inside = (file.parent for file in place.glob(f"*/{FILE_NAME}"))
    # A name with a dot is one of files on their way to the folder.
    return sorted(folder for folder in inside if not folder.name.startswith(".")) or [place]


def check_one(place: Path) -> None:
    """Raises FileNotFoundError where a folder has results of several measures, which it names."""
    if (found := folders(place)) != [place]:
        raise FileNotFoundError(
            f"there is no {FILE_NAME} in {str(place)!r}, but in {', '.join(map(str, found))}, of a "
            "measure each: give one of them"
        )


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The fields that :func:`write` wrote, as far as the file's version has them.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no such file, damaged, or of a later version of the format.
    """
    if not Path(path).is_file():
        hint = ": it is a folder, which repsim_fast.load reads" if Path(path).is_dir() else ""
        raise FileNotFoundError(f"there is no file {str(path)!r}{hint}")
    try:
        metadata, arrays = read_tensors(path, "numpy")
        if metadata.get("format") != _FORMAT:
            raise ValueError("it was not written by SimilarityResult.save")
        version = metadata.get("format_version", "")
        if not (version.isascii() and version.isdigit() and len(version) < 9):
            raise ValueError(f"format_version: expected a number, got {version[:60]!r}")
        if int(version) > _FORMAT_VERSION:
            raise ValueError("it was written by a later version of repsim_fast")
        fields: dict[str, Any] = headers.parsed(metadata.get("result"), _SCHEMA, "result")
        if in_both := fields.keys() & set(_ARRAYS):
            raise ValueError(f"result: expected no arrays, got {', '.join(sorted(in_both))}")
        _check_arrays(arrays, sum(map(len, fields["layers"])), fields.get("group_samples", []))
        fields |= arrays
        if "hsic" in fields:
            fields["hsic"] = _symmetric(fields["hsic"], len(fields["value"]))
        fields["models"] = tuple(fields["models"])
        fields["layers"] = tuple(map(tuple, fields["layers"]))
        fields["group_samples"] = tuple(fields.get("group_samples", ()))
        fields["notes"] = tuple(fields.get("notes", ()))
        fields["sample_digests"] = tuple(fields.get("sample_digests", ()))
        fields.setdefault("chance_note", f"not in a file of format {version}")
        if int(version) < _FORMAT_VERSION:
            _set_apart(fields, version)
    except ValueError as error:
        raise unreadable(path, error) from error
    return fields


def _set_apart(fields: dict[str, Any], version: str) -> None:
    """Digests of an earlier format must not be compared with ours: samples are not known."""
    fields |= {"order_digest": "", "sample_digests": ()}
    settings = fields.get("settings", {})
    if isinstance(weights := settings.get("weights"), dict):
        told = {name: f"{digest} (of format {version})" for name, digest in weights.items()}
        fields["settings"] = {**settings, "weights": told}


def _check_arrays(arrays: Mapping[str, Array], size: int, groups: Sequence[int]) -> None:
    """Raises ValueError unless they are all there, whole and of one size."""
    wanted = {
        "value": (size, size),
        "standard_error": (size, size),
        "chance": (size, size),
        "hsic": (len(groups), size * (size + 1) // 2),
        "left_out": (len(groups), size, size),
    }
    if missing := {"value", "standard_error"} - arrays.keys():
        raise ValueError(f"it lacks {', '.join(sorted(missing))}")
    if unknown := arrays.keys() - wanted.keys():
        raise ValueError(f"it has unknown arrays: {', '.join(sorted(unknown))[:200]}")
    for name, array in arrays.items():
        dtypes = ["float64", "float32"] if name == "hsic" else ["float64"]
        if array.dtype.name not in dtypes or array.shape != wanted[name]:
            raise ValueError(
                f"{name}: expected {' or '.join(dtypes)} of shape {wanted[name]}, got "
                f"{array.dtype} of shape {array.shape}"
            )
    if (arrays["standard_error"] < 0).any():
        raise ValueError(
            "standard_error: expected numbers that are not negative, got negative ones"
        )


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
    matrices = np.empty((len(triangles), size, size), triangles.dtype)
    matrices[:, rows, columns] = matrices[:, columns, rows] = triangles
    return matrices
