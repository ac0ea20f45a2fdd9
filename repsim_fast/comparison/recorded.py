"""Recordings compared with one another: no model runs, and no data are read."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from itertools import count
from time import perf_counter
from typing import Any

import torch
from tqdm import tqdm

from repsim_fast._core.model_state import usable_device
from repsim_fast._core.versions import versions
from repsim_fast.comparison import diagnosis
from repsim_fast.comparison.described import describe
from repsim_fast.comparison.identity import Identity
from repsim_fast.comparison.plan import Member, Models, named_members
from repsim_fast.comparison.playback import (
    Playback,
    Watch,
    check_recordings,
    damaged,
    measure_for,
    notes_with,
    settings_with,
    usable,
)
from repsim_fast.comparison.recording import Recording
from repsim_fast.comparison.session import labelled, notes_of
from repsim_fast.data.batches import Feed
from repsim_fast.data.fingerprint import digest_of_labels, order_of
from repsim_fast.ops import Precision
from repsim_fast.similarity import Measure
from repsim_fast.similarity.base.accumulator import NotFiniteError
from repsim_fast.similarity.base.estimator import Estimator


def opened(recordings: Models | Member, names: Sequence[str] | None = None) -> dict[str, Recording]:
    """Recordings by name, opened where their paths are given.

    Raises:
        TypeError: Something else.
        ValueError: None at all, or names that do not fit.
        FileNotFoundError: A path without a recording.
    """
    members: Models
    if isinstance(recordings, Mapping):
        members = {name: _recording(recording) for name, recording in recordings.items()}
    elif isinstance(recordings, Sequence) and not isinstance(recordings, str):
        members = [_recording(recording) for recording in recordings]
    else:
        members = [_recording(recordings)]
    found = named_members(members, names)
    return {name: m for name, m in found.items() if isinstance(m, Recording)}


def _recording(value: Any) -> Recording:
    """One that is given, or opened where its path is."""
    if isinstance(value, Recording):
        return value
    if isinstance(value, (str, os.PathLike)):
        return Recording.open(value)
    raise TypeError(
        f"recordings: expected recordings or their paths, got {type(value).__name__}: "
        "record(model, data, path) makes one"
    )


def compare_recordings(
    recordings: Mapping[str, Recording],
    *,
    measure: str | Measure[Any] = "cka",
    estimator: Estimator | None = None,
    jackknife: int | None = None,
    permutations: int | None = None,
    precision: Precision | None = None,
    device: torch.device | str | None = None,
    seed: int | None = None,
    progress: bool = False,
) -> dict[str, Any]:
    """The fields of the result of recordings, by the names of their models.

    Arguments are those of ``compare``; what was set when recording holds.

    Raises:
        ValueError: Recordings that do not belong together, or not to the measure.
    """
    start = perf_counter()
    chosen = measure_for(recordings, measure, estimator)
    first = next(iter(recordings.values()))
    accumulator = chosen.accumulator(
        precision=precision,
        jackknife=jackknife,
        permutations=permutations,
        seed=first.settings["seed"] if seed is None else seed,
        capacity=sum(len(recording.layers) for recording in recordings.values()),
    )
    check_recordings(recordings, chosen, accumulator)
    for name, recording in recordings.items():
        recorded = recording.settings.get("precision")
        if precision is not None and recording.keep == "grams" and precision != recorded:
            raise ValueError(
                f"precision: expected {recorded!r}, that of the Grams of recording {name!r} "
                f"({recording.path}), got {precision!r}"
            )
    place = None if device is None else usable_device(device)
    playbacks = [Playback(n, r, accumulator, place) for n, r in recordings.items()]
    batches = usable(first, accumulator.min_samples)
    small = [batch.rows for batch in first.batches if batch.rows < accumulator.min_samples]
    dropped = [*(rows for _, rows in first.dropped), *small]
    if not batches:
        raise diagnosis.no_batch(dropped, accumulator.min_samples)
    numbers = count()
    for batch in tqdm(batches, desc="compare", unit="batch", disable=not progress):
        for playback in playbacks:
            playback.feed(batch.number, batch.rows, lambda n: [next(numbers) for _ in range(n)])
        try:
            accumulator.end_batch(batch.rows, of=batch.samples, number=batch.number)
        except NotFiniteError as error:
            raise damaged(playbacks, error, batch.number) or error from error
    found = accumulator.compute()
    products = {product for r in recordings.values() for product in r.products}
    products |= {p for p in found.settings.get("products", "").split(", ") if p}
    of_batches = accumulator.samples_may_return and len(batches) > 1
    notes = notes_of(
        notes_with(recordings),
        dropped,
        sorted_by=first.sorted_by if of_batches else None,
        replacement=first.replacement,
        n_batches=len(batches),
        estimator=accumulator.description,
        min_samples=accumulator.min_samples,
    )
    settings = settings_with(first.settings, recordings, tuple(recordings))
    if precision is not None:
        settings["precision"] = precision
    if "products" in found.settings:
        settings["products"] = ", ".join(sorted(products))
    return {
        "measure": chosen.info.name,
        "estimator": accumulator.description,
        "settings": settings,
        "versions": versions(),
        "seconds": {"total": perf_counter() - start},
        "order_digest": order_of(batch.digest for batch in batches),
        "sample_digests": first.sample_digests,
        **labelled(found, {p.name: p.rows for p in playbacks}, notes),
    }


def check_arguments(recordings: Mapping[str, Recording], given: Mapping[str, Any]) -> None:
    """Raises ValueError where an argument of running models is not that of the recordings.

    Those at their defaults are taken for not given: what was set when recording holds.
    """
    for name, value in given.items():
        if value == _DEFAULTS[name]:
            continue
        for label, recording in recordings.items():
            recorded = recording.settings.get(name)
            if name in _NOT_RECORDED or recorded != _plain(value):
                raise ValueError(
                    f"{name}: expected the default with recordings alone, whose models are not "
                    f"run, got {value!r}"
                    + (f" where {label!r} has {recorded!r}" if name not in _NOT_RECORDED else "")
                )


_DEFAULTS: Mapping[str, Any] = {
    "layers": None, "inputs": None, "autocast": None, "maps": "flatten", "mask": None,
    "channels": None, "calls": "all", "cuda_graph": False, "batch_size": None, "passes": 1,
    "shuffle": None, "seed": 0, "forward": None, "max_batches": None,
}  # fmt: skip
_NOT_RECORDED = ("layers", "inputs", "cuda_graph", "shuffle", "forward", "max_batches")


def _plain(value: Any) -> Any:
    """A setting as recordings have it."""
    if isinstance(value, torch.dtype):
        return str(value).removeprefix("torch.")
    return value if isinstance(value, int) else describe(value)


def check_data(
    recordings: Mapping[str, Recording],
    feed: Feed,
    identity: Identity,
    *,
    seed: int,
    passes: int,
    **_: Any,
) -> None:
    """Raises ValueError unless the data are those of the recordings; no model is run."""
    live = {
        "data": feed.description,
        "batch_size": feed.batch_size,
        "order": feed.order,
        "seed": seed,
        "passes": passes,
        "ids": identity.kinds,
    }
    watched = [Watch(name, recording) for name, recording in recordings.items()]
    total = 0
    for number, batch in enumerate(feed.batches):
        identity.look(batch)
        total += 1
        for watch in watched:
            watch.check(number, batch.n, identity.latest, live, digest_of_labels(batch))
    for watch in watched:
        watch.finish(total)
