"""Sums over batches, kept on the disk so that a comparison goes on where it was killed.

Each process keeps those of its own batches. One that goes on reads the data again, which tells
whether they are the same, and runs its first batch again, which tells whether the models are.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from repsim_fast._core import headers
from repsim_fast._core.checks import check_whole
from repsim_fast._core.files import check_writable
from repsim_fast._core.locks import only_writer
from repsim_fast._core.processes import Processes
from repsim_fast._core.signals import undisturbed
from repsim_fast._core.tensor_files import read_tensors, write_tensors
from repsim_fast.comparison.engine import Engine
from repsim_fast.data.batches import Batch
from repsim_fast.similarity.base.accumulator import Accumulator
from repsim_fast.similarity.streaming.gram import GramAccumulator
from repsim_fast.similarity.streaming.several import Several

_FORMAT, _VERSION = "repsim_fast.sums", "2"  # 1 knew samples by a part of their numbers
# Relative difference of the first batch's Grams that another device, another number of threads and
# products of low precision explain.
_SAME = 0.02
_NAMES = headers.listed(headers.text())


def _batch(value: Any, where: str) -> None:
    headers.listed(headers.free, 3)(value, where)
    if len(value) != 3:
        raise ValueError(f"{where}: expected number, digest and rows, got {len(value)}")
    headers.whole(0)(value[0], where)
    headers.text(16)(value[1], where)
    headers.optional(headers.whole(0))(value[2], where)


_SCHEMA = headers.record(
    {
        "about": headers.named(headers.free),
        "batches": headers.listed(_batch),  # rows of those too small, else None
        "rows": headers.listed(headers.named(headers.whole(0))),  # of each run's layers
        "skipped": headers.listed(headers.named(headers.text())),
        "notes": _NAMES,
        "products": headers.listed(_NAMES),
    }
)


class Sums:
    """Those of one process's batches, and what is there of an earlier run.

    Args:
        path: The file.
        about: What must be the same for both to be one comparison.
        engine: Runs the batches.
        accumulator: What they are added up in.
        every: Batches after which the file is written.

    Raises:
        ValueError: Measures that do not add up, a damaged file, or one of another comparison.
    """

    def __init__(
        self,
        path: Path,
        about: Mapping[str, Any],
        engine: Engine,
        accumulator: Accumulator,
        *,
        every: int,
    ) -> None:
        self._path, self._engine, self._every = path, engine, every
        self._about = json.loads(json.dumps(about))
        self._accumulators = _adding_up(accumulator)
        self._batches: list[tuple[int, str, int | None]] = []
        self._first: list[Tensor] = []  # of the first batch, what `_check_first` looks at
        self._written = 0
        self._header: dict[str, Any] = {"batches": []}
        self._tensors: dict[str, Tensor] = {}
        if path.exists():
            self._read()
        self._there: dict[int, tuple[str, int | None]] = {
            number: (digest, few) for number, digest, few in self._header["batches"]
        }

    def has(self, number: int) -> bool:
        """Whether this batch has been added in an earlier run."""
        return number in self._there

    def skip(self, batch: Batch, number: int, digest: str) -> int | None:
        """Leave out a batch that there is; its rows if they are too few, else None.

        Raises:
            ValueError: It has other samples, or the models make something else of it.
        """
        known, few = self._there[number]
        if known != digest:
            raise ValueError(
                f"data: {str(self._path)!r} is over other samples, or another order of them, from "
                f"batch {number} on: choose another folder"
            )
        self._batches.append((number, digest, few))
        self._written = len(self._batches)
        if few is None and not self._engine.n_batches:
            self._engine.step(batch, number)
            self._go_on()
        return few

    def add(self, number: int, digest: str, few: int | None) -> None:
        """Note that a batch has been run; ``few``: its rows, where it is left out for them.

        Raises:
            ValueError: Samples that nothing tells apart from others.
            OSError: The file cannot be written.
        """
        if not digest:
            raise ValueError(
                "resume: expected inputs by which samples are known, got none or some that cannot "
                "be read, as sparse tensors; ids= gives samples names"
            )
        if few is None and not self._first:
            self._first = [one.kept()["largest"].clone() for one in self._accumulators]
        self._batches.append((number, digest, few))
        if len(self._batches) - self._written >= self._every:
            self.write()

    def finish(self) -> None:
        """Write all, when the data have no batch left.

        Raises:
            ValueError: They have fewer than there were.
            OSError: The file cannot be written.
        """
        if len(self._batches) < len(self._there):
            raise ValueError(
                f"data: {str(self._path)!r} has {len(self._there)} batches, got "
                f"{len(self._batches)}: choose another folder"
            )
        self.write()

    def write(self) -> None:
        """Write what there is, if it is more than in the file.

        Raises:
            OSError: The file cannot be written.
        """
        counted = sum(few is None for _, _, few in self._batches)
        # An exception may have come before all accumulators had the batch, or before it was noted.
        whole = all(one.n_batches == counted for one in self._accumulators)
        if not (counted and whole and len(self._batches) > self._written):
            return
        header = {
            "about": self._about,
            "batches": self._batches,
            "rows": [run.rows for run in self._engine.runs],
            "skipped": [run.skipped for run in self._engine.runs],
            "notes": self._engine.notes,
            "products": [sorted(one.products) for one in self._accumulators],
        }
        tensors: dict[str, Tensor] = {}
        for number, (one, first) in enumerate(zip(self._accumulators, self._first, strict=True)):
            tensors |= {f"{number}.{name}": tensor for name, tensor in one.kept().items()}
            tensors[f"{number}.first"] = first
        text = json.dumps(header, ensure_ascii=False)
        metadata = {"format": _FORMAT, "format_version": _VERSION, "sums": text}
        write_tensors(self._path, tensors, metadata)
        self._written = len(self._batches)

    def _read(self) -> None:
        metadata, self._tensors = read_tensors(self._path)
        if metadata.get("format") != _FORMAT:
            raise ValueError(f"{self._path}: expected sums of a comparison, got something else")
        if metadata.get("format_version") != _VERSION:
            raise ValueError(
                f"{self._path} was written by another version of repsim_fast: choose another folder"
            )
        self._header = headers.parsed(metadata.get("sums"), _SCHEMA, str(self._path))
        theirs, ours = self._header["about"], self._about
        for key in dict.fromkeys([*ours, *theirs]):
            if theirs.get(key) != ours.get(key):
                raise ValueError(
                    f"{key}: {str(self._path)!r} is of a comparison with {theirs.get(key)!r}, got "
                    f"{ours.get(key)!r}: choose another folder"
                )

    def _go_on(self) -> None:
        """After the first batch, be where the earlier run was."""
        header, runs = self._header, self._engine.runs
        same = header["rows"] == [run.rows for run in runs]
        first = [one.kept()["largest"] for one in self._accumulators]
        kept = [self._of(f"{number}") for number in range(len(first))]
        if not same or not all(_close(a, b.get("first")) for a, b in zip(first, kept, strict=True)):
            raise ValueError(
                f"models: {str(self._path)!r} is of other ones, of other layers or other features "
                "of the first batch: choose another folder"
            )
        sizes = (len(header["products"]), len(header["skipped"]))
        if sizes != (len(kept), len(runs)):
            raise ValueError(f"{self._path}: expected entries of each model, got other numbers")
        try:
            for one, own, products in zip(
                self._accumulators, kept, header["products"], strict=True
            ):
                one.go_on(own, products)
        except ValueError as error:
            raise ValueError(f"{self._path} is damaged: {error}") from error
        for run, skipped in zip(runs, header["skipped"], strict=True):
            run.skipped.update(skipped)
        self._first = [own["first"] for own in kept]
        self._engine.go_on(self._accumulators[0].n_batches, header["notes"])

    def _of(self, prefix: str) -> dict[str, Tensor]:
        start = f"{prefix}."
        return {n.removeprefix(start): t for n, t in self._tensors.items() if n.startswith(start)}


@contextlib.contextmanager
def kept_sums(
    folder: str | os.PathLike[str] | None,
    processes: Processes,
    about: Mapping[str, Any],
    engine: Engine,
    accumulator: Accumulator,
    *,
    every: int,
) -> Iterator[Sums | None]:
    """The sums of this process in a folder, locked; None without one.

    Raises:
        ValueError: As for ``Sums``, or the folder has sums of another number of processes.
        OSError: The folder cannot be written to, or another run writes there.
    """
    if folder is None:
        yield None
        return
    check_whole(every=every)
    if every < 1:
        raise ValueError(f"every: expected at least 1 batch, got {every}")
    check_writable(folder)
    ending = f"-of-{processes.size}.safetensors"
    for path in sorted(Path(folder).glob("sums-*-of-*.safetensors")):
        if not path.name.endswith(ending):
            size = path.stem.rpartition("-")[2]
            raise ValueError(
                f"resume: {os.fspath(folder)!r} has the sums of {size} processes, got "
                f"{processes.size}: start as many as before, or choose another folder"
            )
    file = Path(folder) / f"sums-{processes.rank}{ending}"
    with only_writer(file):
        sums = Sums(file, about, engine, accumulator, every=every)
        try:
            yield sums
        except Exception:
            # Not of an interrupt, which may have come in the middle of a sum.
            with undisturbed(), contextlib.suppress(OSError):
                sums.write()
            raise


def _adding_up(accumulator: Accumulator) -> list[GramAccumulator]:
    members = accumulator.members if isinstance(accumulator, Several) else [accumulator]
    found = [one for one in members if isinstance(one, GramAccumulator)]
    if len(found) < len(members):
        raise ValueError(
            "resume: expected measures from sums over batches, such as cka, got one of all "
            "samples: record(..., keep='features') and compare_zoo go on after a kill"
        )
    return found


def _close(ours: Tensor, theirs: Tensor | None) -> bool:
    if theirs is None or ours.shape != theirs.shape:
        return False
    return float((ours - theirs).norm()) <= _SAME * float(theirs.norm())
