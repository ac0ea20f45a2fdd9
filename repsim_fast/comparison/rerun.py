"""Batches of a recording that are run again, to see that it is of this model and its inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from repsim_fast.comparison.engine import Engine
from repsim_fast.comparison.plan import Run
from repsim_fast.comparison.recording_files import RecordedBatch, part_path, read_part
from repsim_fast.data.batches import Batch
from repsim_fast.similarity.streaming.recorders import Recorder

# Settings that change no value by more than rounding: a recording may go on with others.
MAY_DIFFER = ("device", "threads")
# Relative difference of a batch from what was recorded of it that rounding explains: of the same
# products of float32, on another day; and of another device or number of threads, of 16 bits and
# of products of low precision.
_SAME, _ROUGHLY_THE_SAME = 1e-3, 0.02


class Rerun:
    """Runs some batches of a recording again.

    Args:
        folder: Of the recording.
        found: What it is about, as ``about``.
        about: What is to be recorded.
        parts: Its batches, by part.
        skipped: Layers that it left out, of which it holds something else in place of features.
    """

    def __init__(
        self,
        folder: Path,
        found: Mapping[str, Any],
        about: Mapping[str, Any],
        parts: Sequence[Sequence[RecordedBatch]],
        skipped: Mapping[str, str],
    ) -> None:
        self._folder, self._keep, self._skipped = folder, about["keep"], skipped
        self._tolerance = _tolerance(found["settings"], about)
        self._part_of = {batch.number: n for n, part in enumerate(parts) for batch in part}
        self.first, self.last = parts[0][0].number, parts[-1][-1].number
        """Numbers of batches."""

    def check(self, batch: Batch, number: int, engine: Engine, run: Run, taker: Recorder) -> None:
        """Raises ValueError unless the model makes of a batch what was recorded of it."""
        place = self._part_of[number]
        engine.step(batch, number)
        if differs := self._difference(place, number, list(run.rows), taker.entries):
            raise ValueError(
                f"model: {str(self._folder)!r} has a recording of another one, or of other inputs, "
                f"with other features of batch {number}: {differs}: choose another path (random "
                "numbers are the same each time if torch's generators draw them)"
            )

    def _difference(
        self, place: int, number: int, layers: Sequence[str], entries: Sequence[Tensor]
    ) -> str:
        """What differs most of a batch, in words; nothing if all is the same."""
        part = read_part(part_path(self._folder, place))
        if layers != part.header["layers"]:
            return f"expected layers {part.header['layers']}, got {layers}"
        read = part.grams if self._keep == "grams" else part.features
        recorded = read(number, range(len(entries)))
        off = {
            layer: _off(ours, theirs)
            for layer, ours, theirs in zip(layers, entries, recorded, strict=True)
            if layer not in self._skipped
        }
        if not off or max(off.values()) <= self._tolerance:
            return ""
        worst = max(off, key=lambda layer: off[layer])
        return f"layer {worst!r} is off by {100 * off[worst]:.2g} %"


def _tolerance(theirs: Mapping[str, Any], about: Mapping[str, Any]) -> float:
    ours = about["settings"]
    rough = about["stored"] == "float16" or ours["autocast"] or ours["precision"] != "float32"
    moved = any(theirs.get(name) != ours[name] for name in MAY_DIFFER)
    return _ROUGHLY_THE_SAME if rough or moved else _SAME


def _off(ours: Tensor, theirs: Tensor) -> float:
    """Relative difference of two entries; infinite where they are not comparable."""
    ours, theirs = ours.detach().cpu().double(), theirs.double()
    if ours.shape != theirs.shape:
        return float("inf")
    difference, size = float((ours - theirs).norm()), float(theirs.norm())
    return difference / size if size else float("inf") if difference else 0.0
