"""Image sets in the parquet layout of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from repsim_fast._core.extras import extra
from repsim_fast._core.files import open_regular

from .classes import difference, numbers_in
from .decoding import Encoded, decode_images
from .image_data import ImageData
from .request import Request

if TYPE_CHECKING:
    import pyarrow.parquet as pq

# A label names a class, and all classes below its own: more than any data set has.
_MOST_CLASSES = 1_000_000
_IMAGE_COLUMNS = ("image", "img")
_LABEL_COLUMNS = ("label", "labels", "fine_label")  # CIFAR-100 has fine and coarse ones
# What the files of a split are called, the first that exists; the hub's test files of some sets
# have no labels, or are called validation.
_PREFIXES = {"train": ("train",), "test": ("test", "validation", "val", "valid")}

OTHERS = "other layouts are folder:PATH, cifar10:PATH and npz:FILE"


def load_parquet(path: Path, request: Request) -> ImageData:
    """Read one split of a folder with parquet files, or one file.

    Each file has a struct column `image` or `img` whose field `bytes` is an encoded image, an
    integer column `label` (or `labels`, `fine_label`) and, in the schema metadata under
    `huggingface`, the class names; without names the classes are called "0", "1", ... Where files
    name the same classes in several orders, that of the first training file numbers the labels.

    A folder has files PREFIX-*.parquet or PREFIX.parquet, or a folder PREFIX of files, as the hub
    writes them; or one folder, such as `data`, that has.

    Raises:
        ValueError: no file of the split, a missing column, files of different classes, or an
            unreadable file, image or label.
    """
    files = _files_of_split(path, request.split)
    training = [] if path.is_file() else _named(_place_of(path, request.split), "train")
    names = next(filter(None, map(_class_names, [*training[:1], *files])), ())
    labels = [_read_labels(file, names) for file in files]
    starts = np.cumsum([0] + [len(part) for part in labels])
    rows = request.rows(int(starts[-1]))
    encoded = chain.from_iterable(
        _read_images(file, rows[(rows >= start) & (rows < start + len(part))] - start)
        for file, start, part in zip(files, starts, labels, strict=False)
    )
    all_labels = np.concatenate(labels)
    largest = int(all_labels.max(initial=-1))
    if not names and largest >= _MOST_CLASSES:
        raise ValueError(
            f"{path}: labels without class names must be below {_MOST_CLASSES:,}, got {largest:,}"
        )
    return ImageData(
        images=decode_images(encoded, len(rows), size=request.size, progress=request.progress),
        labels=torch.from_numpy(all_labels[rows]),
        classes=names or tuple(str(k) for k in range(largest + 1)),
        name=path.stem,
        split=request.split,
    )


def _files_of_split(path: Path, split: str) -> list[Path]:
    if path.is_file():
        other = next(name for name in _PREFIXES if name != split)
        if path.stem.split("-")[0] in _PREFIXES[other]:
            raise ValueError(f"{path} is a {other} file by its name, but split is {split!r}")
        return [path]
    if files := _named(_place_of(path, split), split):
        return files
    wanted = " or ".join(f"{prefix}-*.parquet" for prefix in _PREFIXES[split])
    found = ", ".join(sorted(file.name for file in path.glob("*.parquet"))) or "no parquet file"
    raise ValueError(f"no {wanted} in {path}, which has {found}; {OTHERS}")


def _named(folder: Path, split: str) -> list[Path]:
    """The files of a split by their names, or by that of the folder they are in."""
    for prefix in _PREFIXES[split]:
        for pattern in (f"{prefix}-*.parquet", f"{prefix}.parquet", f"{prefix}/*.parquet"):
            if files := sorted(folder.glob(pattern)):
                return files
    return []


def _place_of(path: Path, split: str) -> Path:
    """The folder itself, or the one in it that has the files of a split.

    Raises:
        ValueError: Several have.
    """
    if _named(path, split):
        return path
    inside = [place for place in sorted(path.iterdir()) if place.is_dir() and _named(place, split)]
    if len(inside) > 1:
        raise ValueError(f"{path} has several sets, choose one: {', '.join(map(str, inside))}")
    return inside[0] if inside else path


def _class_names(file: Path) -> tuple[str, ...]:
    with _open(file) as table:
        metadata = table.schema_arrow.metadata or {}
        label = _column(file, table, _LABEL_COLUMNS)
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}")).get("info", {})["features"]
        return tuple(features[label]["names"])
    except (KeyError, TypeError, AttributeError, ValueError):  # no names, or another layout
        return ()


def _read_labels(file: Path, names: tuple[str, ...]) -> npt.NDArray[np.int64]:
    with _open(file) as table:
        column = _column(file, table, _LABEL_COLUMNS)
        got = table.schema_arrow.field(column).type
        if not _arrow().types.is_integer(got):
            raise ValueError(f"{file}: column {column!r} must hold integers, got {got}")
        values = table.read([column])[column]
    own = _class_names(file) or names
    # No value counts as one out of range; unsigned ones beyond int64 must not wrap around.
    known = values.fill_null(len(own) if own else 0).to_numpy()
    invalid = values.is_null().to_numpy() | (known < 0) | (known > np.iinfo(np.int64).max)
    if own:
        invalid |= known >= len(own)
    if invalid.any():
        row = int(invalid.argmax())
        wanted = f"0..{len(own) - 1}" if own else "0 or more"
        raise ValueError(f"{file}, row {row}: label must be {wanted}, got {values[row]}")
    labels: npt.NDArray[np.int64] = known.astype(np.int64)
    if own == names:
        return labels
    if (numbers := numbers_in(own, names)) is None:
        raise ValueError(f"{file}: has other classes than other files: {difference(own, names)}")
    renumbered: npt.NDArray[np.int64] = numbers.numpy()[labels]
    return renumbered


def _read_images(file: Path, rows: npt.NDArray[np.int64]) -> Iterator[Encoded]:
    with _open(file) as table:
        column = _column(file, table, _IMAGE_COLUMNS)
        got = table.schema_arrow.field(column).type
        if not _arrow().types.is_struct(got):
            raise ValueError(f"{file}: column {column!r} must be a struct with bytes, got {got}")
        start = 0
        for group in range(table.num_row_groups):
            end = start + table.metadata.row_group(group).num_rows
            chosen = rows[(rows >= start) & (rows < end)]
            if len(chosen):
                images = table.read_row_group(group, columns=[f"{column}.bytes"])[column]
                for row in chosen:
                    image = images[int(row - start)].as_py()
                    where = f"{file}, row {row}"
                    if not image or not image.get("bytes"):
                        raise ValueError(f"{where}: there is no image, its bytes are empty")
                    yield Encoded(image["bytes"], where)
            start = end


def _column(file: Path, table: pq.ParquetFile, names: tuple[str, ...]) -> str:
    columns = table.schema_arrow.names
    for name in names:
        if name in columns:
            return name
    raise ValueError(f"{file}: needs a column {' or '.join(names)}, has {', '.join(columns)}")


@contextmanager
def _open(file: Path) -> Iterator[pq.ParquetFile]:
    arrow = _arrow()
    try:
        open_regular(file).close()
        with arrow.parquet.ParquetFile(file) as table:
            yield table
    except Exception as error:  # a damaged file can raise nearly anything
        if isinstance(error, ValueError) and not isinstance(error, arrow.ArrowException):
            raise  # of ours, with a name already
        other = "" if file.suffix == ".parquet" else f"; {OTHERS}"
        raise ValueError(f"cannot read the parquet file {file}: {error}{other}") from error


def _arrow() -> ModuleType:
    """Apache Arrow, with its reader of parquet files."""
    extra("pyarrow.parquet", of="parquet", purpose="reading parquet files")
    return extra("pyarrow", of="parquet", purpose="reading parquet files")
