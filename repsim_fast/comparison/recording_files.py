"""The folder of a recording: parts of some batches each, written whole or not at all, and an index.

A recording is finished when its index is there. Before, it has as many batches as its parts, and
whoever records the same again goes on after them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from repsim_fast._core import headers
from repsim_fast._core.tensor_files import MappedTensors, read_tensors, write_tensors

Stored = Literal["float32", "float16"]
STORED: tuple[Stored, ...] = ("float32", "float16")

INDEX = "recording.safetensors"
_PART_FORMAT, _INDEX_FORMAT = "repsim_fast.Recording.part", "repsim_fast.Recording"
_VERSION = "2"
# 1 knew samples and weights by a part of their numbers.
_EARLIER = ("1",)
# Bytes of batches in memory, at which a part is written before it has its number of batches.
_LARGEST_PART = 256 * 2**20
# Exponent of the largest entry in float16: below its largest number, far above its smallest.
_TOP = 15
# Beyond which float32 does not hold such numbers with all their digits.
_LARGEST_EXPONENT = 100


class RecordedBatch(NamedTuple):
    """A batch of a recording.

    Attributes:
        number: Which of the data it was, counted from 0; those too small are not recorded.
        rows: Rows of its features.
        samples: Samples that they are of.
        digest: Of the samples in their order.
        labels: Digest of the labels that a transform of inputs was given; empty without.
    """

    number: int
    rows: int
    samples: int
    digest: str
    labels: str = ""


_COUNT = headers.whole(0)
_NAMES = headers.listed(headers.text())


def _batch(value: Any, where: str) -> None:
    headers.listed(headers.free, 5)(value, where)
    if len(value) != 5:
        raise ValueError(
            f"{where}: expected number, rows, samples and digests of them and their labels, got "
            f"{len(value)}"
        )
    for entry in value[:3]:
        _COUNT(entry, where)
    for entry in value[3:]:
        headers.text(16)(entry, where)


def _dropped(value: Any, where: str) -> None:
    headers.listed(_COUNT, 2)(value, where)
    if len(value) != 2:
        raise ValueError(f"{where}: expected number and rows, got {len(value)} numbers")


_BY_MODEL = headers.named(headers.text())
_SETTINGS = headers.record(
    {"seed": headers.whole(-(2**63), 2**64), "passes": headers.whole(1)},
    {"models": _BY_MODEL, "inputs": _BY_MODEL, "layers": _BY_MODEL, "weights": _BY_MODEL},
)
_ABOUT = headers.record(
    {
        "name": headers.text(),
        "keep": headers.text(20),
        "estimator": headers.optional(headers.text(20)),
        "stored": headers.optional(headers.text(20)),
        "settings": _SETTINGS,
    }
)
_PROGRESS = {
    "batches": headers.listed(_batch),
    "dropped": headers.listed(_dropped),
    "layers": _NAMES,  # by row
    "skipped": headers.named(headers.text()),
    "notes": _NAMES,
}
_PART = headers.record({"about": _ABOUT, **_PROGRESS})
_INDEX = headers.record(
    {
        "about": _ABOUT,
        **_PROGRESS,
        "parts": headers.listed(headers.whole(1)),  # batches of each
        "roles": headers.named(headers.text()),
        "products": _NAMES,
        "wide": headers.listed(headers.truth),
        "sample_digests": headers.listed(headers.text(16)),
        "sorted_by": headers.optional(headers.text(20)),
        "replacement": headers.truth,
        "versions": headers.named(headers.text()),
        "seconds": headers.named(headers.number(0)),
    }
)


class Part(NamedTuple):
    """A part's header, and its tensors, mapped into memory."""

    header: dict[str, Any]
    tensors: MappedTensors

    @property
    def checksums(self) -> dict[str, int]:
        """Those of what is kept of the batches, by its names."""
        return {n: sum_ for n, sum_ in self.tensors.checksums.items() if n[:1].isdecimal()}

    def grams(self, batch: int, rows: Sequence[int]) -> Tensor:
        """The packed Grams (k, m) of rows in the batch with this number.

        They lie in the file as they are, but for numbers of 16 bits that were chosen for it, which
        come as float32.
        """
        grams: Tensor = self.tensors.get(f"{batch}")
        if grams.dim() != 2 or len(grams) <= max(rows):
            raise ValueError(f"{batch}: expected a Gram of each layer, got {tuple(grams.shape)}")
        exponents = self._exponents(batch, rows)
        chosen = grams if len(rows) == len(grams) else grams[list(rows)]
        return chosen if exponents is None else _expanded(chosen, exponents[list(rows)])

    def features(self, batch: int, rows: Sequence[int]) -> Iterator[Tensor]:
        """The features (n, p) of rows in the batch with this number, as `grams` has Grams; those of
        16 bits as computed."""
        exponents = self._exponents(batch, rows)
        for row in rows:
            found = self.tensors.get(name := f"{batch}.{row}")
            if (middle := f"{name}.mean") in self.tensors.names:  # narrower than computed
                if exponents is not None:
                    found = _expanded(found[None], exponents[row, None])[0]
                found = found + self.tensors.get(middle)
            yield found

    def _exponents(self, batch: int, rows: Sequence[int]) -> Tensor | None:
        if f"{batch}.exponents" not in self.tensors.names:
            return None
        exponents: Tensor = self.tensors.get(f"{batch}.exponents").clone()
        if exponents.dtype != torch.int16 or exponents.shape <= (max(rows),):
            raise ValueError(f"{batch}.exponents: expected int16, one for each layer")
        return exponents


def part_path(folder: Path, number: int) -> Path:
    """Where part ``number`` lies."""
    return folder / f"batches-{number:05d}.safetensors"


def to_record_again(folder: Path) -> str:
    """What helps where a part of a recording is gone or damaged, as the end of a message."""
    return f"remove the folder {str(folder)!r} to record it again"


def read_part(path: Path) -> Part:
    """A part.

    Raises:
        FileNotFoundError: It is not there.
        ValueError: It is none, or damaged.
    """
    try:
        tensors = MappedTensors(path)
    except ValueError as error:
        raise ValueError(f"{error}; {to_record_again(path.parent)}") from error
    header = _header(path, tensors.metadata, _PART_FORMAT, _PART)
    return Part(header, tensors)


def read_index(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The index of a finished recording, with its tensors: "scales" and "rounding", (layers,).

    Raises:
        FileNotFoundError: There is none.
        ValueError: It is none, or damaged.
    """
    path = folder / INDEX
    metadata, tensors = read_tensors(path)
    header = _header(path, metadata, _INDEX_FORMAT, _INDEX)
    size = len(header["layers"])
    for name in ("scales", "rounding"):
        found = tensors.get(name)
        if found is None or found.dtype != torch.float64 or found.shape != (size,):
            got = "none" if found is None else f"{found.dtype} of shape {tuple(found.shape)}"
            raise ValueError(f"{path}: {name}: expected float64 of shape ({size},), got {got}")
    if len(header["wide"]) != size or sum(header["parts"]) != len(header["batches"]):
        raise ValueError(f"{path}: expected an entry for each layer and part, got other numbers")
    return header, tensors


def write_index(
    folder: Path,
    header: Mapping[str, Any],
    scales: Tensor,  # (layers,) float64
    rounding: Tensor,  # (layers,) float64
) -> None:
    """Write the index: the recording is finished.

    Raises:
        OSError: The place cannot be written to, or is full.
    """
    tensors = {"scales": scales.contiguous(), "rounding": rounding.contiguous()}
    write_tensors(folder / INDEX, tensors, _metadata(_INDEX_FORMAT, header))


def unfinished_parts(folder: Path) -> list[dict[str, Any]]:
    """Headers of the parts that are there, in order.

    Raises:
        ValueError: One is damaged, or not the next one.
    """
    found: list[dict[str, Any]] = []
    while part_path(folder, len(found)).exists():
        found.append(read_part(part_path(folder, len(found))).header)
    return found


class PartWriter:
    """Collects batches and writes them in parts.

    Args:
        folder: Where.
        about: What all parts have in common.
        stored: Dtype in which entries are written; None: as they are.
        every: Batches in a part, at most.
        parts: Parts that are there.

    Attributes:
        parts: Batches of each part that is written.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        *,
        keep: str,
        stored: Stored | None,
        every: int,
        parts: Sequence[int],
    ) -> None:
        self.parts = list(parts)
        self._folder = folder
        self._about = dict(about)
        self._keep = keep
        self._stored = stored
        self._every = every
        self._held: list[_Held] = []

    def add(self, batch: RecordedBatch, entries: Sequence[Tensor]) -> None:
        """Take a copy of what is kept of a batch, one entry a row."""
        number, tensors = batch.number, dict[str, Tensor]()
        if self._keep == "grams":
            compact = [_compact(torch.stack([e.detach().cpu() for e in entries]), self._stored)]
            tensors[f"{number}"] = compact[0].values
        else:
            compact = []
            for row, entry in enumerate(entries):
                features = entry.detach().cpu()
                if _is_narrower(self._stored, features):
                    # Apart, for it may be far larger than what varies.
                    wide = features.to(torch.promote_types(features.dtype, torch.float32))
                    tensors[f"{number}.{row}.mean"] = middle = wide.mean(0)
                    features = wide - middle
                compact.append(_compact(features[None], self._stored))
                # Cloned: layers may share what they return.
                copy = compact[-1].values[0].clone(memory_format=torch.contiguous_format)
                tensors[f"{number}.{row}"] = copy
        if self._stored == "float16":
            tensors[f"{number}.exponents"] = torch.cat([c.exponents for c in compact])
        sums = [torch.cat([c.errors for c in compact]), torch.cat([c.sizes for c in compact])]
        # At once: an interrupt comes before all of it or after.
        self._held.append(_Held(batch, tensors, torch.stack(sums)))

    @property
    def is_full(self) -> bool:
        """Whether it is time to write."""
        held = sum(tensor.nbytes for one in self._held for tensor in one.tensors.values())
        return len(self._held) >= self._every or held >= _LARGEST_PART

    def flush(self, progress: Mapping[str, Any]) -> None:
        """Write the batches that were added since the last time as a part, if there are any.

        Args:
            progress: Layers, those left out, batches dropped since then, notes.

        Raises:
            OSError: The place cannot be written to, or is full; the batches are still held.
        """
        if not self._held:
            return
        width = max(one.rounding.shape[1] for one in self._held)
        rounding = torch.stack([_padded(one.rounding, width) for one in self._held]).sum(dim=0)
        batches = [one.batch for one in self._held]
        tensors = {
            **{name: tensor for one in self._held for name, tensor in one.tensors.items()},
            "rounding": rounding,
        }
        header = {"about": self._about, "batches": batches, **progress}
        path = part_path(self._folder, len(self.parts))
        write_tensors(path, tensors, _metadata(_PART_FORMAT, header))
        count = len(batches)
        # Without a call in between, before which an interrupt could come.
        self.parts, self._held = [*self.parts, count], []


class _Held(NamedTuple):
    """A batch that is still to be written."""

    batch: RecordedBatch
    tensors: dict[str, Tensor]
    rounding: Tensor  # (2, layers) squares of errors and of entries


def _padded(
    sums: Tensor,  # (2, layers)
    width: int,
) -> Tensor:
    return torch.nn.functional.pad(sums, (0, width - sums.shape[1]))


def rounding_of(folder: Path, parts: int) -> Tensor:
    """(layers,) relative error of what the parts hold, √(Σ error² / Σ entry²)."""
    total = torch.zeros(2, 0, dtype=torch.float64)
    for number in range(parts):
        own = read_part(part_path(folder, number)).tensors.get("rounding").clone()
        width = max(total.shape[1], own.shape[1])
        total = _padded(total, width) + _padded(own, width)
    return (total[0] / total[1].clamp_min(torch.finfo(torch.float64).tiny)).sqrt()


def _expanded(
    values: Tensor,  # (L, ...)
    exponents: Tensor,  # (L,)
) -> Tensor:
    """Values times 2 to the exponents, in a dtype that holds them."""
    fits = bool((exponents.abs() < _LARGEST_EXPONENT).all())
    powers = exponents.view(-1, *[1] * (values.dim() - 1))
    return torch.ldexp(values.float() if fits else values.double(), powers)


class _Compact(NamedTuple):
    """Entries as they are written; true values are times 2 to the exponents."""

    values: Tensor  # (L, ...)
    exponents: Tensor  # (L,)
    errors: Tensor  # (L,) sums of squares
    sizes: Tensor  # (L,)


def _is_narrower(stored: Stored | None, entries: Tensor) -> bool:
    """Whether the dtype that is stored may not hold what was computed."""
    if stored is None:
        return False
    chosen: torch.dtype = getattr(torch, stored)
    return torch.promote_types(chosen, entries.dtype) != chosen


def _compact(
    entries: Tensor,  # (L, ...)
    stored: Stored | None,
) -> _Compact:
    none = torch.zeros(len(entries), dtype=torch.float64)
    exponents = torch.zeros(len(entries), dtype=torch.int16)
    if not _is_narrower(stored, entries):  # a wider one would hide what they were rounded to
        return _Compact(entries, exponents, none, torch.ones_like(none))
    rows = entries.flatten(1)
    if stored == "float32":
        values = rows.float()
        back = values.to(rows.dtype)
    else:
        # Powers of two change no digit, of float32 and wider.
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        largest = rows.abs().amax(dim=1) if rows.numel() else none.to(rows)
        exponents = torch.where(largest > 0, torch.frexp(largest).exponent - _TOP, 0).short()
        values = torch.ldexp(rows, -exponents[:, None]).half()
        back = torch.ldexp(values.to(rows.dtype), exponents[:, None])
    wide = torch.float64
    errors = torch.linalg.vector_norm(back - rows, dim=1, dtype=wide).square()
    sizes = torch.linalg.vector_norm(rows, dim=1, dtype=wide).square()
    return _Compact(values.view(entries.shape), exponents, errors, sizes)


def _header(path: Path, metadata: Mapping[str, str], kind: str, schema: headers.Schema) -> Any:
    if metadata.get("format") != kind:
        raise ValueError(f"{os.fspath(path)} is no part of a recording that record() wrote")
    if metadata.get("format_version") in _EARLIER:
        raise ValueError(
            f"{os.fspath(path)} was written by an earlier version of repsim_fast, which knew "
            "samples by a part of their numbers: record the model anew, to another path"
        )
    if metadata.get("format_version") != _VERSION:
        raise ValueError(f"{os.fspath(path)} was written by a later version of repsim_fast")
    found = headers.parsed(metadata.get("recording"), schema, os.fspath(path))
    found["batches"] = [RecordedBatch(*batch) for batch in found["batches"]]
    return found


def _metadata(kind: str, header: Mapping[str, Any]) -> dict[str, str]:
    text = json.dumps(header, ensure_ascii=False)
    return {"format": kind, "format_version": _VERSION, "recording": text}
