"""The data sets, by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PARQUET = ("cifar10", "tiny-imagenette", "tiny-imagenet-20k")


@dataclass(frozen=True)
class DataSet:
    """Where a data set is, and how training augments it.

    Attributes:
        name: Short name.
        spec: Source, as ``repsim_fast.data.load`` reads it.
        augment: See ``repsim_fast.training.train``.
        size: Side that images are resized to, None for their own.
    """

    name: str
    spec: str
    augment: str | None
    size: int | None = None


def data_root() -> Path:
    """Folder of the parquet data sets: $REPSIM_DATA, or ``shared/data`` beside the repository."""
    return Path(os.environ.get("REPSIM_DATA", REPOSITORY.parent / "shared" / "data"))


def find(name: str, *, size: int | None = None) -> DataSet:
    """A data set by its name, or any source that ``repsim_fast.data.load`` reads.

    Raises:
        ValueError: Its folder is not there.
    """
    if name == "digits":
        return DataSet("digits", "digits", None, size)
    if name in PARQUET:
        known = data_root() / name
        if not known.is_dir():
            raise ValueError(
                f"{name} is not at {known}: set REPSIM_DATA to the folder that holds {name}/ "
                "with its parquet files, or name a source that repsim_fast.data reads"
            )
        return DataSet(name, str(known), "crop+flip", size)
    last = name.rstrip("/").replace("\\", "/").rpartition("/")[2]
    return DataSet(last.partition(":")[2] or Path(name).name, name, "crop+flip", size)
