"""Recordings in a comparison: whether they belong together, and their batches for the measure."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import device as Device

from repsim_fast.comparison.intake import TooFewRowsError
from repsim_fast.comparison.plan import choose_measure
from repsim_fast.comparison.recording import Recording
from repsim_fast.comparison.recording_files import Part, RecordedBatch
from repsim_fast.similarity import Measure, get_measure
from repsim_fast.similarity.base.accumulator import Accumulator, NotFiniteError
from repsim_fast.similarity.base.estimator import CENTERING, Estimator
from repsim_fast.similarity.base.measure import options
from repsim_fast.similarity.streaming.gram_buffer import packed_size

# Settings that all models of a comparison have in common, and those that explain other batches.
_COMMON = ("maps", "mask", "channels", "calls", "autocast", "passes")
_OF_BATCHES = ("data", "batch_size", "order", "seed", "passes", "ids")
_OF_MODELS = ("models", "inputs", "layers", "weights")


class Watch:
    """The batches of one recording, held against those of the data.

    Args:
        name: Of the model in this comparison.
        recording: What it made of the data.
    """

    def __init__(self, name: str, recording: Recording) -> None:
        self.name = name
        self.recording = recording
        self._parts = _Cursor(recording.parts())

    def check(
        self, number: int, n: int, digest: str, live: Mapping[str, Any], labels: str = ""
    ) -> None:
        """Raises ValueError unless batch ``number`` of the data is the recording's.

        Args:
            number: Of the batch.
            n: Its samples.
            digest: Of these, in their order.
            live: Settings of the comparison.
            labels: Digest of the batch's labels where they count: those of both must be the same,
                unless samples are known by ids.
        """
        own = self._parts.at(number)
        if own is None and number in dict(self.recording.dropped):
            return
        if own is None or (own[0].samples, own[0].digest) != (n, digest):
            what = "other samples or another order of them"
            if own is None:
                what = "none"
            elif own[0].samples != n:
                what = f"one of {own[0].samples}"
            raise ValueError(
                f"data: batch {number} has {n} samples, for which recording {self._title} has "
                f"{what}{_differences(self.recording.settings, live, 'the comparison')}"
            )

        if _other_labels(own[0].labels, labels, live):
            raise ValueError(
                f"data: batch {number} has other labels than the transform of inputs of recording "
                f"{self._title} was given"
            )

    def finish(self, count: int) -> None:
        """Raises ValueError where the recording has batches beyond the ``count`` of the data."""
        if self._parts.beyond(count):
            raise ValueError(
                f"data: expected the {len(self.recording.batches)} batches of recording "
                f"{self._title}, got {count}"
            )

    @property
    def _title(self) -> str:
        return f"{self.name!r} ({self.recording.path})"


class Playback(Watch):
    """One recording in a comparison; its layers have rows of the accumulator, like a model's.

    Args:
        name: Of the model in this comparison.
        recording: What it made of the data.
        accumulator: Where features or Grams go.
        place: Device on which the comparison computes; None for the CPU.

    Attributes:
        rows: The accumulator's number of each layer, successive ones, once the first batch is
            there.
    """

    def __init__(
        self,
        name: str,
        recording: Recording,
        accumulator: Accumulator,
        place: Device | None = None,
    ) -> None:
        super().__init__(name, recording)
        self.rows: dict[str, int] = {}
        self._accumulator = accumulator
        self._place = place
        layers = range(len(recording.layers))
        self._scales = [recording.scale(layer).to(place or "cpu") for layer in layers]

    def feed(
        self, number: int, expected: int | None, new_rows: Callable[[int], Sequence[int]]
    ) -> int:
        """Give the accumulator the batch with this number; the rows of its features come back.

        Args:
            number: Of the batch.
            expected: Rows of the features of all other layers; None where that is not known yet.
            new_rows: From a number of layers to their rows in the accumulator.

        Raises:
            ValueError: There is no such batch, or it has other rows.
            TooFewRowsError: It was too small to be recorded, or is for this measure.
        """
        found = self._parts.at(number)
        rows = dict(self.recording.dropped).get(number) if found is None else found[0].rows
        if rows is not None and (found is None or rows < self._accumulator.min_samples):
            raise TooFewRowsError(rows)
        if found is None or rows is None or expected not in (None, rows):
            raise ValueError(
                f"recording {self._title}: expected {expected} rows in batch {number}, got "
                f"{'no such batch' if rows is None else rows}"
            )
        batch, part = found
        if not self.rows:
            numbers = new_rows(len(self.recording.layers))
            self.rows = dict(zip(self.recording.layers, numbers, strict=True))
        if self.recording.keep == "grams":
            grams = self.recording.grams(batch, part)
            wanted = packed_size(rows, self._accumulator.centering or "none")
            if grams.shape[1] != wanted:
                what = f"expected {wanted} numbers, got {grams.shape[1]}"
                raise self.damaged(number, next(iter(self.rows)), what)
            here = grams if self._place is None else grams.to(self._place)
            self._accumulator.add_grams(min(self.rows.values()), here, self._scales)
            return rows
        features = self.recording.features(batch, part)
        for (layer, row), entry in zip(self.rows.items(), features, strict=True):
            if entry.dim() != 2 or len(entry) != rows:
                got = tuple(entry.shape)
                raise self.damaged(number, layer, f"expected {rows} rows, got {got}")
            # Cloned: at a file's odd addresses kernels round differently.
            here = entry.clone() if self._place is None else entry.to(self._place, copy=True)
            self._accumulator.add(row, here)
        return rows

    def damaged(self, number: int, layer: str, what: str) -> ValueError:
        """What to raise for an entry that cannot be what was recorded."""
        return ValueError(
            f"recording {self._title} is damaged: layer {layer!r} in batch {number}: {what}"
        )


def damaged(playbacks: Sequence[Playback], error: NotFiniteError, number: int) -> ValueError | None:
    """What to raise where it is a recording that has NaN or Inf: none was written."""
    for playback in playbacks:
        for layer, row in playback.rows.items():
            if row == min(error.layers):
                return playback.damaged(number, layer, "NaN or Inf")
    return None


class _Cursor:
    """Batches by number, in order, each asked for several times or not at all."""

    def __init__(self, batches: Iterator[tuple[RecordedBatch, Part]]) -> None:
        self._batches = batches
        self._current = next(batches, None)

    def at(self, number: int) -> tuple[RecordedBatch, Part] | None:
        while self._current is not None and self._current[0].number < number:
            self._current = next(self._batches, None)
        found = self._current
        return found if found is not None and found[0].number == number else None

    def beyond(self, count: int) -> bool:
        """Whether there is a batch of a number from ``count`` on."""
        self.at(count)
        return self._current is not None


def measure_for(
    recordings: Mapping[str, Recording],
    measure: str | Measure[Any],
    estimator: Estimator | None,
) -> Measure[Any]:
    """The measure, with the estimator that Grams were recorded for where none was asked for."""
    chosen = choose_measure(measure, estimator)
    recorded = {r.estimator for r in recordings.values() if r.estimator is not None}
    open_choice = estimator is None and isinstance(measure, str) and "estimator" in options(chosen)
    if open_choice and len(recorded) == 1:
        return get_measure(chosen.info.name, estimator=recorded.pop())
    return chosen


def check_recordings(
    recordings: Mapping[str, Recording],
    measure: Measure[Any],
    accumulator: Accumulator,
    live: Mapping[str, Any] | None = None,
) -> None:
    """Raises ValueError where recordings cannot be compared by this measure, or with one another.

    Args:
        recordings: By the name of the model.
        measure: The measure.
        accumulator: Its accumulator.
        live: Settings of the comparison, where there are models to run as well.
    """
    for name, recording in recordings.items():
        title = f"recording {name!r} ({recording.path})"
        centering = CENTERING.get(recording.estimator or "")
        if recording.keep == "grams" and accumulator.centering != centering:
            raise ValueError(
                f"measure: {title} has Grams for cka with estimator {recording.estimator!r}, got "
                f"{measure.info.name} ({accumulator.description}): record(..., keep='features') "
                "keeps what every measure needs"
            )
        passes, again = recording.settings.get("passes"), recording.replacement
        if not accumulator.samples_may_return and (passes != 1 or again):
            raise ValueError(
                f"measure: {measure.info.name} needs each sample once, got {title} of "
                f"{passes} passes" + " and samples drawn with replacement" * again
            )
    first, *others = recordings.items()
    if live is not None:
        for name, recording in recordings.items():
            _check_settings(name, recording, live, "the comparison")
    for name, recording in others:
        _check_settings(name, recording, first[1].settings, f"recording {first[0]!r}")
        _check_batches(name, recording, *first, accumulator.min_samples)
    _check_labels(recordings)


def _check_settings(name: str, recording: Recording, other: Mapping[str, Any], whose: str) -> None:
    of_grams = ("precision",) if recording.keep == "grams" else ()
    for key in (*_COMMON, *of_grams):
        ours, theirs = other.get(key), recording.settings.get(key)
        if ours != theirs:
            raise ValueError(
                f"{key}: expected {ours!r} as {whose}, got recording {name!r} ({recording.path}) "
                f"with {theirs!r}"
            )


def _check_batches(name: str, ours: Recording, other: str, theirs: Recording, least: int) -> None:
    """Raises ValueError unless two recordings are over the same samples in the same batches."""
    mine, wanted = usable(ours, least), usable(theirs, least)
    what = ""
    if sum(b.samples for b in mine) != sum(b.samples for b in wanted):
        count = sum(b.samples for b in wanted)
        what = f"{count} samples, got {sum(b.samples for b in mine)}"
    elif [b.samples for b in mine] != [b.samples for b in wanted]:
        what = f"batches of {_sizes(wanted)} samples, got {_sizes(mine)}"
    else:
        for one, two in zip(mine, wanted, strict=True):
            if (one.number, one.digest, one.rows) != (two.number, two.digest, two.rows):
                what = (
                    "the same samples in the same order, got other ones or another order from "
                    f"batch {one.number} on"
                )
                break
    if what:
        raise ValueError(
            f"recording {name!r} ({ours.path}): expected as in {other!r} ({theirs.path}) {what}"
            f"{_differences(ours.settings, theirs.settings, f'{other!r}')}"
        )


def _check_labels(recordings: Mapping[str, Recording]) -> None:
    """Raises ValueError unless all transforms of inputs were given the same labels."""
    given = {n: r for n, r in recordings.items() if any(batch.labels for batch in r.batches)}
    for name, recording in given.items():
        first = next(iter(given))
        wanted = {batch.number: batch.labels for batch in given[first].batches}
        for batch in recording.batches:
            if _other_labels(batch.labels, wanted.get(batch.number, ""), recording.settings):
                raise ValueError(
                    f"recording {name!r} ({recording.path}): expected as in {first!r} "
                    f"({given[first].path}) the same labels for the transform of inputs, got other "
                    f"ones in batch {batch.number}"
                )


def _other_labels(ours: str, theirs: str, settings: Mapping[str, Any]) -> bool:
    """Whether two transforms of inputs were given different labels of the same samples. Inputs of
    samples known by ids differ by nature, and so may their labels."""
    return bool(ours and theirs and ours != theirs and not settings.get("ids"))


def usable(recording: Recording, least: int) -> list[RecordedBatch]:
    """Batches of so many rows at least."""
    return [batch for batch in recording.batches if batch.rows >= least]


def _sizes(batches: Sequence[RecordedBatch]) -> str:
    sizes = sorted({batch.samples for batch in batches}, reverse=True)
    return ", ".join(map(str, sizes[:5])) + ", ..." * (len(sizes) > 5)


def _differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], whose: str) -> str:
    """What about the batches was set otherwise, as the end of a message."""
    differ = [key for key in _OF_BATCHES if ours.get(key) != theirs.get(key)]
    if not differ:
        return ""
    listed = ", ".join(f"{key} {ours.get(key)!r} and {theirs.get(key)!r}" for key in differ)
    return f"; it and {whose} differ in {listed}"


def settings_with(
    common: Mapping[str, Any], recordings: Mapping[str, Recording], names: Sequence[str]
) -> dict[str, Any]:
    """Settings of a comparison of models and recordings, in the order of their names."""
    of_models: dict[str, dict[str, Any]] = {}
    for key in _OF_MODELS:
        found = {
            name: recordings[name].settings.get(key, {}).get(recordings[name].name)
            if name in recordings
            else common.get(key, {}).get(name)
            for name in names
        }
        of_models[key] = {name: value for name, value in found.items() if value is not None}
    paths = {name: os.path.abspath(recording.path) for name, recording in recordings.items()}
    contents = {name: recording.digest for name, recording in recordings.items()}
    return {**common, **of_models, "recordings": paths, "contents": contents}


def notes_with(recordings: Mapping[str, Recording]) -> Iterator[str]:
    """What was noted of the models of recordings, and how far 16 bits are off."""
    for name, recording in recordings.items():
        for note in recording.notes:
            yield note.replace(f"model {recording.name!r}", f"model {name!r}", 1)
    rough = {n: r for n, r in recordings.items() if float(r.rounding.max()) > 0}
    if rough:
        largest = sorted((float(r.rounding.max()) for r in rough.values()), reverse=True)
        named = ", ".join(map(repr, list(rough)[:5])) + ", ..." * (len(rough) > 5)
        one, two = largest[0], largest[0] if len(largest) == 1 else largest[1]
        grams = all(r.keep == "grams" for r in rough.values())
        bound = math.asin(min(1.0, one)) + math.asin(min(1.0, two))
        yield (
            f"recordings of {named} are stored in {next(iter(rough.values())).stored}, with a "
            f"relative error of layers up to {one:.2g}"
            + (
                f": values are off by at most {bound:.2g}"
                if grams
                else "; cca and others to which small directions count may be off by far more"
            )
        )
