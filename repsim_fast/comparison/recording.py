"""A recording: what one model made of the data, kept so that it can be compared again and again."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from repsim_fast.comparison.recording_files import (
    INDEX,
    Part,
    RecordedBatch,
    part_path,
    read_index,
    read_part,
    to_record_again,
    unfinished_parts,
)

__all__ = ["Recording"]


@dataclass(frozen=True, eq=False, repr=False)
class Recording:
    """What ``record`` wrote of one model; ``Recording.open(path)`` finds it.

    Attributes:
        path: The folder.
        name: Of the model.
        keep: "grams", packed centred Grams of each batch, or "features".
        estimator: That the Grams are centred for; None of features.
        stored: Dtype that was chosen for the files; None: as computed.
        layers: Names of the layers, in order of execution.
        roles: Kind of each layer, such as "conv", where it has one.
        batches: Number, rows, samples and digest of each batch.
        dropped: Rows of batches that were too small.
        settings: Arguments, as plain data, like those of a result.
        versions: Of the software.
        notes: What one must know of the layers.
        products: What Gram products were taken in.
        scales: (layers,) norm of one sample's features.
        wide: Whether features are float64, by layer.
        rounding: (layers,) relative error of what is stored, √(Σ error² / Σ entry²), of features
            without their means; 0 where it is stored as computed.
        sample_digests: Some of the samples.
        sorted_by: What the data come sorted by.
        replacement: Whether a sample may have come several times.
        seconds: Wall time.
        skipped: Why layers were left out, by name.

    Example:
        >>> import tempfile, torch
        >>> from repsim_fast import Recording, record
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = record(torch.nn.Linear(5, 3), torch.randn(64, 5), f"{folder}/linear")
        ...     Recording.open(f"{folder}/linear").n_samples
        64
    """

    path: Path
    name: str
    keep: str
    estimator: str | None
    stored: str | None
    layers: tuple[str, ...]
    roles: Mapping[str, str]
    batches: tuple[RecordedBatch, ...]
    dropped: tuple[tuple[int, int], ...]
    settings: Mapping[str, Any]
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    products: tuple[str, ...]
    scales: Tensor
    wide: tuple[bool, ...]
    rounding: Tensor
    sample_digests: tuple[str, ...]
    sorted_by: str | None
    replacement: bool
    seconds: Mapping[str, float]
    skipped: Mapping[str, str]
    _rows: tuple[int, ...]
    _parts: tuple[int, ...]

    def __repr__(self) -> str:
        what = f"{self.keep} ({self.estimator})" if self.estimator else self.keep
        return (
            f"Recording({str(self.path)!r}: {self.name}, {what} of {len(self.layers)} layers, "
            f"{self.n_samples} samples in {len(self.batches)} batches, "
            f"{self.n_bytes / 2**20:.3g} MiB)"
        )

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Recording:
        """The recording in a folder; what it holds stays on the disk until it is asked for.

        Raises:
            FileNotFoundError: There is none, or a part of it is missing.
            ValueError: It is not finished, is damaged, or is no recording.
        """
        folder = Path(path)
        if not folder.is_dir():
            raise FileNotFoundError(f"expected the folder of a recording, got {os.fspath(path)!r}")
        if not (folder / INDEX).exists():
            raise _without_index(folder)
        header, tensors = read_index(folder)
        for number in range(len(header["parts"])):
            path = part_path(folder, number)
            if not path.exists():
                raise FileNotFoundError(
                    f"{path} is missing: the recording has {len(header['parts'])} parts; "
                    f"{to_record_again(folder)}"
                )
            read_part(path)  # now, while it can be said before any work
        about, skipped = header["about"], header["skipped"]
        rows = [row for row, name in enumerate(header["layers"]) if name not in skipped]
        if not rows or not header["batches"]:
            raise ValueError(f"{folder / INDEX}: expected layers and batches, got none")
        return cls(
            path=folder,
            name=about["name"],
            keep=about["keep"],
            estimator=about["estimator"],
            stored=about["stored"],
            layers=tuple(header["layers"][row] for row in rows),
            roles=header["roles"],
            batches=tuple(header["batches"]),
            dropped=tuple((number, n) for number, n in header["dropped"]),
            settings=about["settings"],
            versions=header["versions"],
            notes=tuple(header["notes"]),
            products=tuple(header["products"]),
            scales=tensors["scales"][rows],
            wide=tuple(header["wide"][row] for row in rows),
            rounding=tensors["rounding"][rows],
            sample_digests=tuple(header["sample_digests"]),
            sorted_by=header["sorted_by"],
            replacement=header["replacement"],
            seconds=header["seconds"],
            skipped=skipped,
            _rows=tuple(rows),
            _parts=tuple(header["parts"]),
        )

    @property
    def n_samples(self) -> int:
        """Rows of features, all batches together: samples, or their tokens or positions."""
        return sum(batch.rows for batch in self.batches)

    @property
    def n_bytes(self) -> int:
        """Bytes on the disk."""
        parts = (part_path(self.path, number) for number in range(len(self._parts)))
        return sum(path.stat().st_size for path in (*parts, self.path / INDEX))

    @property
    def batches_by_part(self) -> list[list[RecordedBatch]]:
        """The batches of each part, in order."""
        batches = iter(self.batches)
        return [[next(batches) for _ in range(count)] for count in self._parts]

    @property
    def digest(self) -> str:
        """The same for the same numbers in the same batches only, by their checksums.

        Raises:
            ValueError: A part is no part of a recording.
        """
        found: dict[str, int] = {}
        for number in range(len(self._parts)):
            found |= read_part(part_path(self.path, number)).checksums
        return hashlib.sha256(repr(sorted(found.items())).encode()).hexdigest()[:16]

    def parts(self) -> Iterator[tuple[RecordedBatch, Part]]:
        """Each batch and the part that has it, in order; one part is open at a time.

        Raises:
            ValueError: A part is damaged, or of another recording.
        """
        for number, mine in enumerate(self.batches_by_part):
            path = part_path(self.path, number)
            part = read_part(path)
            if part.header["batches"] != mine or part.header["about"]["settings"] != self.settings:
                raise ValueError(
                    f"{path}: expected the part of this recording, got another's; "
                    f"{to_record_again(self.path)}"
                )
            for batch in mine:
                yield batch, part

    def grams(self, batch: RecordedBatch, part: Part) -> Tensor:
        """Packed Grams (layers, m) of a batch, where they are what was kept."""
        return part.grams(batch.number, self._rows)

    def features(self, batch: RecordedBatch, part: Part) -> Iterator[Tensor]:
        """Of each layer the features (n, p) of a batch, where they are what was kept."""
        return part.features(batch.number, self._rows)

    def scale(self, layer: int) -> Tensor:
        """Norm of one sample's features of a layer, in the dtype of its Gram."""
        dtype = torch.float64 if self.wide[layer] else torch.float32
        return self.scales[layer].to(dtype)


def is_recording(path: str | os.PathLike[str]) -> bool:
    """Whether a recording lies there, finished or not."""
    folder = Path(path)
    return (folder / INDEX).is_file() or part_path(folder, 0).is_file()


def _without_index(folder: Path) -> Exception:
    """What to raise for a folder without the file that ends a recording."""
    parts = unfinished_parts(folder)
    if not parts:
        return FileNotFoundError(f"expected a recording in {str(folder)!r}, got a folder without")
    done = sum(len(part["batches"]) for part in parts)
    return ValueError(
        f"{str(folder)!r}: expected a finished recording, got one of {done} batches so far: "
        "record() with the same arguments goes on with it"
    )
