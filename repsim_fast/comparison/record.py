"""Run one model once and keep what comparisons need of it, on the disk."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any, Literal, TypedDict

import torch
from torch import nn

from repsim_fast._core import headers
from repsim_fast._core.checks import check_autocast, check_choice, check_whole
from repsim_fast._core.files import check_writable, named_folder
from repsim_fast._core.locks import only_writer
from repsim_fast._core.model_state import check_hookable, device_of, unwrap, usable_device
from repsim_fast._core.precision import autocast_around
from repsim_fast._core.signals import undisturbed
from repsim_fast._core.versions import versions
from repsim_fast.capture import ChannelsOf, LayerSpec, Maps, MaskSpec, layer_kind, modules_by_layer
from repsim_fast.comparison import diagnosis
from repsim_fast.comparison.engine import Engine
from repsim_fast.comparison.identity import Identity, identify
from repsim_fast.comparison.intake import TooFewRowsError
from repsim_fast.comparison.plan import Run, Transform, make_plan
from repsim_fast.comparison.recording import Recording
from repsim_fast.comparison.recording_files import (
    INDEX,
    STORED,
    PartWriter,
    RecordedBatch,
    Stored,
    rounding_of,
    unfinished_parts,
    write_index,
)
from repsim_fast.comparison.rerun import MAY_DIFFER, Rerun
from repsim_fast.comparison.session import borrowed, settings_of, shown
from repsim_fast.data.batches import Batch, Feed, open_data
from repsim_fast.data.fingerprint import digest_of_labels
from repsim_fast.ops import Precision
from repsim_fast.similarity.base.estimator import ESTIMATORS, Estimator
from repsim_fast.similarity.streaming.recorders import Kept, Recorder, recorder

__all__ = ["record"]


class RecordOptions(TypedDict, total=False):
    """Keyword arguments of :func:`record` that are the same for all models of a comparison."""

    every: int
    ids: Sequence[object] | None
    batch_size: int | None
    passes: int
    shuffle: bool | None
    device: torch.device | str | None
    autocast: torch.dtype | None
    precision: Precision | None
    maps: Maps
    mask: MaskSpec
    channels: ChannelsOf
    calls: Literal["all", "first"]
    seed: int


def record(
    model: nn.Module,
    data: Any,
    path: str | os.PathLike[str],
    *,
    name: str | None = None,
    keep: Kept = "grams",
    estimator: Estimator = "unbiased",
    stored: Stored | None = None,
    every: int = 16,
    layers: LayerSpec = None,
    inputs: Transform | None = None,
    ids: Sequence[object] | None = None,
    batch_size: int | None = None,
    passes: int = 1,
    shuffle: bool | None = None,
    device: torch.device | str | None = None,
    autocast: torch.dtype | None = None,
    precision: Precision | None = None,
    maps: Maps = "flatten",
    mask: MaskSpec = None,
    channels: ChannelsOf = None,
    calls: Literal["all", "first"] = "all",
    progress: bool = False,
    seed: int = 0,
) -> Recording:
    """Run a model once over the data and keep on the disk what ``compare`` needs of it.

    ``compare([recording, other_recording, model], data)`` then gives what ``compare`` of the models
    gives; of recordings alone, the data may be left out. The files hold of each batch of n samples
    n²/2 numbers a layer, or with ``keep="features"`` its features; memory holds one part of them.

    A part is written whole after every few batches, and an index at the end. A recording that was
    stopped goes on after its last part when the same is recorded again: the first batch is run once
    more to see that it is the same model with the same inputs. One that is finished is returned as
    it is, after that batch and the last one were run again. Nothing is ever written over: where the
    folder has another recording, that is an error.

    Args:
        model: Comes back as it was.
        data: As for ``compare``, of one model.
        path: Folder for the files; made if missing.
        name: Of the model in results. Default: the name of the folder.
        keep: "grams", for linear CKA with the estimator; or "features", for every measure and
            estimator, of the layers' size.
        estimator: Of the CKA that Grams are for: "unbiased", or "biased".
        stored: Dtype in the files of what has more digits: None as computed, nothing is lost;
            "float32"; or "float16", two bytes a number, of each layer and batch with a common power
            of two; means of features lie apart in float32. The recording has the relative error of
            each layer as ``rounding`` (1e-4 to 2.5e-4 of float16), of features that of their
            deviations from the batch's means. Of Grams, errors ρ and σ of two layers change CKA by
            at most asin ρ + asin σ, and by far less on average; of features there is no such bound.
        every: Batches in a part, at most; fewer where they take more than 256 MiB.
        layers: As for ``compare``.
        inputs: As for ``compare``. A transform that draws from a generator of its own goes on from
            the generator's start after an interruption. Labels that it is given are known, too.
        ids: One different number or text for each sample, by which recordings are known to be of
            the same samples where their inputs differ, as those of two tokenizers do: equal whole
            numbers are the same of whatever type. Default: samples are known by their inputs.
        batch_size: As for ``compare``; all recordings that are compared must have the same.
        passes: As for ``compare``.
        shuffle: As for ``compare``.
        device: As for ``compare``.
        autocast: As for ``compare``.
        precision: As for ``compare``, of Grams.
        maps: As for ``compare``.
        mask: As for ``compare``.
        channels: As for ``compare``.
        calls: As for ``compare``.
        progress: Show a progress bar with samples a second and the time left.
        seed: As for ``compare``.

    Returns:
        The finished recording.

    Raises:
        ValueError: Unusable argument or data, as for ``compare``; or the folder has a recording of
            another model, of other data or with other settings: the message names what differs.
        TypeError: An argument of the wrong type.
        OSError: The folder cannot be written to, or is full; batches written before are kept.

    Example:
        >>> import tempfile, torch
        >>> from repsim_fast import compare, record
        >>> one, two, data = torch.nn.Linear(5, 3), torch.nn.Linear(5, 4), torch.randn(64, 5)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     recordings = [record(one, data, f"{folder}/one"), record(two, data, f"{folder}/2")]
        ...     compare(recordings).models
        ('one', '2')
    """
    start = perf_counter()
    check_choice("keep", keep, ("grams", "features"))
    check_choice("estimator", estimator, ESTIMATORS)
    check_choice("stored", stored, (None, *STORED))
    check_autocast(autocast)
    check_whole(every=every)
    if every < 1:
        raise ValueError(f"every: expected at least 1 batch, got {every}")
    if keep == "features" and precision is not None:
        raise ValueError(
            f"precision: expected None for keep='features', which takes no products, got "
            f"{precision!r}"
        )
    folder = named_folder("path", path)
    name = folder.resolve().name if name is None else name
    headers.text()(name, "name")
    module = check_hookable(unwrap(check_hookable(model)))
    opening: dict[str, Any] = {
        "batch_size": batch_size, "passes": passes, "shuffle": shuffle, "seed": seed,
    }  # fmt: skip
    feed = open_data(data, models=(name,), **opening)
    identity = identify(ids, feed, **opening)
    plan = make_plan({name: module}, layers=layers, inputs=inputs, paired=feed.paired)
    run = plan.runs[0]
    taker = recorder(keep, estimator=estimator, precision=precision, capacity=plan.n_layers)
    if passes > 1 and not taker.samples_may_return:
        raise ValueError(f"passes: expected 1 for keep='features', each sample once, got {passes}")
    place = None if device is None else usable_device(device)
    autocast = autocast or autocast_around(place or device_of(module))
    settings = settings_of(
        plan,
        feed,
        maps=maps,
        mask=mask,
        channels=channels,
        calls=calls,
        passes=passes,
        seed=seed,
        autocast=autocast,
        precision=precision,
        cuda_graph=False,
        place=place,
    )
    settings["ids"] = identity.kinds
    about = {
        "name": name,
        "keep": keep,
        "estimator": estimator if keep == "grams" else None,
        "stored": stored,
        "settings": settings,
    }
    engine = Engine(
        [run],
        taker,
        maps=maps,
        mask=mask,
        channels=channels,
        calls=calls,
        autocast=autocast,
        n_batches=feed.n_of_all,
        batch_size=feed.batch_size,
        seed=seed,
    )
    check_writable(folder)
    with only_writer(folder):
        if (folder / INDEX).exists():
            there = _Finished(Recording.open(folder), about, engine, run, taker, identity)
            with borrowed([module], place, seed), engine:
                return there.checked(feed)
        session = _Session(folder, about, engine, run, taker, identity, every=every)
        with borrowed([module], place, seed), engine:
            session.run(feed, progress=progress)
        session.finish(feed, {"total": perf_counter() - start, **engine.seconds})
    return Recording.open(folder)


class _Session:
    """The batches of one recording, after those that are there already."""

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        engine: Engine,
        run: Run,
        taker: Recorder,
        identity: Identity,
        *,
        every: int,
    ) -> None:
        self.folder, self.about, self.engine, self.run_of_model = folder, about, engine, run
        self.taker, self.identity = taker, identity
        parts = unfinished_parts(folder)
        for header in parts:
            _check_same(header["about"], about, folder)
        self.batches = [batch for header in parts for batch in header["batches"]]
        self.dropped = [tuple(entry) for header in parts for entry in header["dropped"]]
        self.notes = [note for header in parts for note in header["notes"]]
        self.recorded = {batch.number: batch for batch in self.batches}
        self.layers = parts[-1]["layers"] if parts else []
        self.skipped = parts[-1]["skipped"] if parts else {}
        self._written = len(self.dropped)
        by_part = [header["batches"] for header in parts]
        self.rerun = (
            Rerun(folder, parts[0]["about"], about, by_part, self.skipped) if parts else None
        )
        self.writer = PartWriter(
            folder,
            about,
            keep=about["keep"],
            stored=about["stored"],
            every=every,
            parts=[len(header["batches"]) for header in parts],
        )

    def run(self, feed: Feed, *, progress: bool) -> None:
        """Run all batches that are not there yet; those that are done are kept, come what may."""
        number, done = -1, {number for number, _ in self.dropped}
        try:
            for number, batch in shown(feed, f"record {self.about['name']}", progress=progress):
                self.identity.look(batch)
                if not self.identity.latest:
                    raise ValueError(
                        "data: expected inputs by which samples are known, got none or some "
                        "that cannot be read, as sparse tensors; ids= gives samples names"
                    )
                if number in self.recorded or number in done:
                    self._skip(batch, number)
                else:
                    self._record(batch, number)
        except BaseException:
            # A disk that is full stays so; what is told is the first error.
            with undisturbed(), contextlib.suppress(OSError):
                self._flush()
            raise
        if self.recorded and number < self.batches[-1].number:
            raise ValueError(
                f"data: {str(self.folder)!r} has a recording of more batches than the {number + 1} "
                "there are: choose another path"
            )
        if not self.engine.n_batches:
            raise diagnosis.no_batch([n for _, n in self.dropped], self.taker.min_samples)
        self._flush()

    def _record(self, batch: Batch, number: int) -> None:
        if self.engine.is_too_small(batch):
            self.dropped.append((number, batch.n))
            return
        try:
            self.engine.step(batch, number)
        except TooFewRowsError as error:
            self.dropped.append((number, error.rows))
            return
        self.identity.count()
        self._add(batch, number)
        if self.writer.is_full:
            self._flush()

    def _add(self, batch: Batch, number: int) -> None:
        entries = self.taker.entries
        rows = batch.n if self.engine.rows is None else self.engine.rows
        labels = _labels(batch, self.run_of_model)
        new = RecordedBatch(number, rows, batch.n, self.identity.latest, labels)
        self.writer.add(new, entries)
        self.batches.append(new)

    def _skip(self, batch: Batch, number: int) -> None:
        """A batch that is there, or was too small; the first one is run again, as a check."""
        there = self.recorded.get(number)
        if there is None:
            return
        _check_batch(there, self.identity.latest, _labels(batch, self.run_of_model), self.folder)
        if self.rerun is not None and number == self.rerun.first:
            self.rerun.check(batch, number, self.engine, self.run_of_model, self.taker)
        self.identity.count()
        if number == self.batches[-1].number:
            self.run_of_model.skipped.update(self.skipped)

    def _flush(self) -> None:
        run = self.run_of_model
        progress = {
            "dropped": self.dropped[self._written :],
            "layers": sorted(run.rows, key=lambda layer: run.rows[layer]),
            "skipped": dict(run.skipped),
            "notes": self.engine.notes,
        }
        self.writer.flush(progress)
        self._written = len(self.dropped)

    def finish(self, feed: Feed, seconds: Mapping[str, float]) -> None:
        """Write the index."""
        run = self.run_of_model
        layers = sorted(run.rows, key=lambda layer: run.rows[layer])
        modules = modules_by_layer(run.model)
        kinds = {layer: layer_kind(modules[layer.partition("#")[0]]) for layer in layers}
        scales = self.taker.scales or [torch.zeros(()) for _ in layers]
        of_samples = diagnosis.several_times(
            self.identity,
            passes=self.about["settings"]["passes"],
            replacement=feed.replacement,
        )
        header = {
            "about": self.about,
            "batches": self.batches,
            "dropped": self.dropped,
            "layers": layers,
            "skipped": dict(run.skipped),
            "notes": list(dict.fromkeys([*self.notes, *self.engine.notes, *of_samples])),
            "parts": self.writer.parts,
            "roles": {layer: kind for layer, kind in kinds.items() if kind},
            "products": sorted(self.taker.products),
            "wide": [scale.dtype == torch.float64 for scale in scales],
            "sample_digests": list(self.identity.samples),
            "sorted_by": None if feed.check is None else feed.check.sorted_by,
            "replacement": feed.replacement,
            "versions": versions(),
            "seconds": dict(seconds),
        }
        rounding = rounding_of(self.folder, len(self.writer.parts))
        scale = torch.stack([scale.detach().cpu().double() for scale in scales])
        write_index(self.folder, header, scale, rounding)


class _Finished:
    """A recording that is there, whole, and what would be recorded in its place."""

    def __init__(
        self,
        there: Recording,
        about: Mapping[str, Any],
        engine: Engine,
        run: Run,
        taker: Recorder,
        identity: Identity,
    ) -> None:
        self.there, self.engine, self.run_of_model = there, engine, run
        self.taker, self.identity = taker, identity
        found = {key: getattr(there, key) for key in about}
        _check_same(found, about, there.path)
        self.rerun = Rerun(there.path, found, about, there.batches_by_part, there.skipped)

    def checked(self, feed: Feed) -> Recording:
        """The recording, if it is of this model and these data: some batches are run again."""
        there = self.there
        recorded = {batch.number: batch for batch in there.batches}
        numbers = set()
        for number, batch in enumerate(feed.batches):
            self.identity.look(batch)
            numbers.add(number)
            if number in recorded:
                labels = _labels(batch, self.run_of_model)
                _check_batch(recorded[number], self.identity.latest, labels, there.path)
            if number in (self.rerun.first, self.rerun.last):
                self.rerun.check(batch, number, self.engine, self.run_of_model, self.taker)
        if numbers != recorded.keys() | {number for number, _ in there.dropped}:
            raise ValueError(
                f"data: {str(there.path)!r} has a recording of {len(there.batches)} batches, got "
                f"{len(numbers)}: choose another path"
            )
        return there


def _labels(batch: Batch, run: Run) -> str:
    """Digest of the labels, where a transform is given them."""
    return "" if run.transform is None else digest_of_labels(batch)


def _check_batch(there: RecordedBatch, digest: str, labels: str, folder: Path) -> None:
    """Raises ValueError unless a batch that is recorded is of the same samples and labels."""
    for what, theirs, ours in (("samples", there.digest, digest), ("labels", there.labels, labels)):
        if theirs != ours:
            raise ValueError(
                f"data: {str(folder)!r} has a recording of other {what}, or of another order of "
                f"them, from batch {there.number} on: choose another path"
            )


def _check_same(found: Mapping[str, Any], about: Mapping[str, Any], folder: Path) -> None:
    """Raises ValueError where a recording that is there has other settings."""
    theirs, ours = _flat(found), _flat(about)
    for key in dict.fromkeys([*ours, *theirs]):
        if key not in MAY_DIFFER and theirs.get(key) != ours.get(key):
            raise ValueError(
                f"{key}: {str(folder)!r} has a recording with {theirs.get(key)!r}, got "
                f"{ours.get(key)!r}: choose another path"
            )


def _flat(about: Mapping[str, Any]) -> dict[str, Any]:
    return {**{k: v for k, v in about.items() if k != "settings"}, **about["settings"]}
