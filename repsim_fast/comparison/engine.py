"""The loop of a comparison: batches through models, features of layers into an accumulator."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any, Literal

import torch

from repsim_fast._core.borrow import model_dtype
from repsim_fast._core.buffers import KeptBuffers
from repsim_fast._core.model_state import device_of
from repsim_fast._core.randomness import aside
from repsim_fast.capture import (
    Capture,
    ChannelsOf,
    Forms,
    Maps,
    MaskSpec,
    check_masks,
    find_mask,
    find_places,
    left_out_by_default,
)
from repsim_fast.comparison import diagnosis
from repsim_fast.comparison.described import short_name
from repsim_fast.comparison.inputs import BatchInputs, forward
from repsim_fast.comparison.intake import Intake
from repsim_fast.comparison.layouts import Layouts
from repsim_fast.comparison.plan import Run
from repsim_fast.comparison.playback import Playback, damaged
from repsim_fast.comparison.replay import Replay
from repsim_fast.data.batches import Batch
from repsim_fast.similarity.base.accumulator import NotFiniteError, Taker


class Engine:
    """Feeds batches to models and what their layers return to the accumulator.

    A context manager: hooks are there inside the ``with`` block only.

    Args:
        runs: What to run on every batch, in this order.
        accumulator: Where features go.
        maps: What becomes of maps and tokens, as in ``Capture``.
        mask: Which tokens are real, as in ``Capture``.
        channels: Where layers have their channels, as in ``Capture``.
        calls: Which calls of a layer count, as in ``Capture``.
        autocast: Dtype of automatic mixed precision, or None for none.
        cuda_graph: Whether the passes of batches like the one before are replayed as a CUDA graph.
        n_batches: Batches that will come, in all processes; None where that is not known.
        batch_size: Samples in a batch, the largest; None where that is not known.
        seed: Of random numbers that models and transforms draw.
        playbacks: Recordings that bring what their models made of the same batches, and how many
            runs come before each of them in the order of the layers.

    Attributes:
        seconds: Wall time of transformed inputs, forward passes and the combination of pairs.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        accumulator: Taker,
        *,
        maps: Maps,
        mask: MaskSpec = None,
        channels: ChannelsOf = None,
        calls: Literal["all", "first"],
        autocast: torch.dtype | None,
        cuda_graph: bool = False,
        n_batches: int | None = None,
        batch_size: int | None = None,
        playbacks: Sequence[tuple[int, Playback]] = (),
        seed: int,
    ) -> None:
        self.runs = runs
        self._seed, self._streams = seed, _streams(runs)
        self.playbacks = [playback for _, playback in playbacks]
        self._before = [place for place, _ in playbacks]
        self.accumulator = accumulator
        self.seconds = {"inputs": 0.0, "forward": 0.0, "pairs": 0.0}
        self._autocast = autocast
        self._mask = mask
        check_masks(mask, [r.model for r in runs])
        order = accumulator.any_feature_order
        self._forms = [
            Forms(r.model, maps, mask=mask, channels=channels, any_order=order) for r in runs
        ]
        self._intake = Intake(accumulator, rows_are_samples=self._forms[0].rows_are_samples)
        self._captures = [
            Capture(
                r.model,
                r.hooked if r.layers is None else r.layers,
                maps=None,
                calls=calls,
                on_activation=self._intake.taker(r, forms),
            )
            for r, forms in zip(runs, self._forms, strict=True)
        ]
        self._layouts = Layouts(
            runs, calls=calls, autocast=autocast, n_batches=n_batches, batch_size=batch_size
        )
        self._buffers: dict[int, KeptBuffers] = {}  # by run
        self._begun = False
        self._hooked = contextlib.ExitStack()  # captures that stay from batch to batch
        self._cuda_graph = cuda_graph
        self._replay: Replay | None = None
        self._earlier_notes: Sequence[str] = ()

    @property
    def n_batches(self) -> int:
        """Batches that count."""
        return self._intake.n_batches

    @property
    def rows(self) -> int | None:
        """Rows of the features of the latest batch, where a pass was needed to know them."""
        return self._intake.expected

    def __enter__(self) -> Engine:
        """Take models as they are, and every batch finds them so; the first one puts the hooks in
        place."""
        if self._cuda_graph:
            self._replay = Replay(_one_gpu({device_of(r.model) for r in self.runs}))
        self._buffers = {id(r): KeptBuffers([r.model]) for r in self.runs}
        return self

    def __exit__(self, *error: object) -> None:
        self._hooked.close()
        self._layouts.close()
        # They know the accumulator: memory that should not wait for the collector of cycles.
        self._captures.clear()
        self._buffers.clear()
        self._replay = None

    @property
    def notes(self) -> list[str]:
        """What the caller of a comparison should be warned of."""
        notes = [*self._earlier_notes]
        for r, forms in zip(self.runs, self._forms, strict=True):
            own = left_out_by_default(r.model) if r.layers is None else []
            notes += [f"model {r.name!r}: {note}" for note in (*own, *forms.notes())]
            notes += [diagnosis.left_out(r)] if r.skipped else []
            notes += [diagnosis.stateful(r)] if r.changing else []
            half = self._autocast or model_dtype(r.model, torch.float32)
            # Grams of CKA are not moved by what small directions hold.
            if half.itemsize == 2 and not self.accumulator.any_feature_order:
                wide = self._intake.wide_layers(r)
                notes += [diagnosis.coarse(r, half, wide)] if wide else []
        return list(dict.fromkeys(notes))

    def go_on(self, n_batches: int, notes: Sequence[str]) -> None:
        """After a first batch, be what had taken so many and noted this."""
        self._intake.n_batches, self._earlier_notes = n_batches, notes

    def is_too_small(self, batch: Batch) -> bool:
        """Whether the batch has too few samples for the measure."""
        return self._intake.rows_are_samples and batch.n < self.accumulator.min_samples

    def step(self, batch: Batch, number: int) -> None:
        """Run every model on one batch. A batch that raises leaves no trace in the result.

        Raises:
            TooFewRowsError: The batch has too few tokens or positions for the measure.
        """
        try:
            with self._aside(number):
                self._step(batch, number)
        except (RuntimeError, MemoryError) as error:
            if isinstance(error, torch.OutOfMemoryError) or not diagnosis.out_of_memory(error):
                raise
            raise diagnosis.too_large(batch.n, number, error) from error

    def _begin(self, inputs: BatchInputs) -> None:
        """Choose memory formats, unless the caller's own code takes what layers return, then put
        the hooks in place for all batches, unless a transform may run models itself."""
        start = perf_counter()
        if not any(callable(forms.maps) for forms in self._forms):
            self._layouts.settle(inputs)
        if all(r.transform is None for r in self.runs):
            with contextlib.ExitStack() as hooked:
                for forms, capture in zip(self._forms, self._captures, strict=True):
                    hooked.enter_context(_hooks(forms, capture))
                self._hooked = hooked.pop_all()
        self._begun = True
        self.seconds["forward"] += perf_counter() - start

    def _step(self, batch: Batch, number: int) -> None:
        inputs = BatchInputs(batch)
        if not self._begun:
            self._begin(inputs)
        self._run_all(inputs, number)
        start = perf_counter()
        if self.n_batches:
            self._play(number)
        rows = self._intake.expected or batch.n
        try:
            self.accumulator.end_batch(rows, of=batch.n, number=number)
        except NotFiniteError as error:
            self._hooked.close()
            if of_recordings := damaged(self.playbacks, error, number):
                raise of_recordings from error
            raise diagnosis.not_finite(
                error, self.runs, number, lambda r: self._run(r, self._seen(r, inputs), number)
            ) from error
        self.seconds["pairs"] += perf_counter() - start
        self._intake.n_batches += 1

    def _run_all(self, inputs: BatchInputs, number: int) -> None:
        """Run every model, by a CUDA graph if that was asked for."""
        batch, rows_before = inputs.batch, self._intake.expected
        self._intake.start_batch(batch.n)
        if self._replay is None:
            self._passes(inputs, number)
            return
        _check_no_mask(batch.x, self._mask)
        start, before = perf_counter(), self.seconds["forward"]
        if self._replay.run(batch, lambda b: self._passes(BatchInputs(b), number)):
            self._intake.expected = rows_before  # a replay runs no hooks
        self.seconds["forward"] = before + perf_counter() - start

    def _passes(self, inputs: BatchInputs, number: int) -> None:
        """Forward passes of all models on a batch."""
        first = self.n_batches == 0
        parts = zip(self.runs, self._forms, self._captures, strict=True)
        for position, (r, forms, capture) in enumerate(parts):
            if first:  # layers get their numbers in the order of the models
                self._play(number, position)
            start, before = perf_counter(), self.seconds["inputs"]
            forms.n = inputs.batch.n
            try:
                self._pass(r, forms, capture, inputs, number)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError:
                # It may not take channels last after all, in a part that runs for some sizes only.
                if self._replay is not None or not self._layouts.give_up(r):
                    raise
                self._pass(r, forms, capture, inputs, number)
            if self.n_batches == 0:
                diagnosis.check_first_pass(r)
                r.changing = self._buffers[id(r)].look()
            self._intake.end_pass(r, number)
            diagnosis.check_any_layer(r)
            made = self.seconds["inputs"] - before
            self.seconds["forward"] += perf_counter() - start - made
        if first:
            self._play(number, len(self.runs))

    def _pass(
        self, r: Run, forms: Forms, capture: Capture, inputs: BatchInputs, number: int
    ) -> None:
        """The forward pass of one model on a batch."""
        start = perf_counter()
        transform = "" if r.transform is None else short_name(r.transform)
        with self._aside(number, "inputs", transform):
            x = self._seen(r, inputs)
        self.seconds["inputs"] += perf_counter() - start
        if self.n_batches == 0:
            self._find_places(r, forms, x, number)
        r.taken.clear()
        r.running = True
        try:
            with contextlib.nullcontext() if capture.active else _hooks(forms, capture):
                self._run(r, x, number)
        finally:
            r.running = False

    def _seen(self, r: Run, inputs: BatchInputs) -> Any:
        """What a run's model is given."""
        return self._layouts.laid_out(r, inputs.of(r))

    def _play(self, number: int, after: int | None = None) -> None:
        """Take the batch from all recordings, or from those that come after so many runs."""
        intake = self._intake
        for place, playback in zip(self._before, self.playbacks, strict=True):
            if after in (None, place):
                intake.expected = playback.feed(number, intake.expected, intake.new_rows)

    def _find_places(self, r: Run, forms: Forms, x: Any, number: int) -> None:
        """Find where layers have their samples; a callable takes what a layer returns as it is."""
        if not callable(forms.maps):
            forms.places = find_places(
                r.model,
                r.hooked,
                x,
                forms.n,
                lambda some: self._forward(r, some, number),
                strict=r.layers is None,
            )

    def _aside(self, number: int, *what: str) -> contextlib.AbstractContextManager[None]:
        """Random numbers of a batch, and in it of a model or a transform, whoever else is compared,
        recorded, or run before in this process. A CUDA graph takes them as they come."""
        if self._replay is not None:
            return contextlib.nullcontext()
        return aside({device_of(r.model) for r in self.runs}, self._seed, number, *what)

    def _run(self, r: Run, x: Any, number: int) -> None:
        """A forward pass with the model's own random numbers of the batch, and the buffers that it
        came with: so that values do not depend on the batches before, nor on where these ran."""
        with self._aside(number, self._streams[id(r)]):
            self._buffers[id(r)].put_changed_back()
            self._forward(r, x, number)

    def _forward(self, r: Run, x: Any, number: int) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self._autocast is not None:
                kind = device_of(r.model).type
                stack.enter_context(torch.autocast(kind, dtype=self._autocast))
            try:
                forward(r, x)
            except torch.OutOfMemoryError:
                raise
            except diagnosis.OF_A_FORWARD_PASS as error:
                if diagnosis.out_of_memory(error) or diagnosis.from_a_hook(error):
                    raise
                raise diagnosis.failed(r, x, number, error) from error


@contextlib.contextmanager
def _hooks(forms: Forms, capture: Capture) -> Iterator[None]:
    """Hooks of both, in the order in which they need each other."""
    with forms.watching(), capture:
        yield


def _streams(runs: Sequence[Run]) -> dict[int, str]:
    """What each model's random numbers follow from: its contents, and if it is there several times,
    which time it is."""
    found: dict[int, str] = {}
    for r in runs:
        kind = f"{type(r.model).__name__} {r.weights}"
        times = sum(other.startswith(f"{kind} ") for other in found.values())
        found[id(r)] = f"{kind} {times}"
    return found


def _check_no_mask(x: Any, spec: MaskSpec) -> None:
    """A replayed graph runs no hooks, so that nothing would look at the masks of its batches."""
    if isinstance(spec, Mapping):
        name = "mask="
    elif (mask := find_mask(x, spec)) is not None:
        name = mask.name
    else:
        return
    raise ValueError(f"cuda_graph: expected inputs without a mask of tokens, got {name}")


def _one_gpu(devices: set[torch.device]) -> torch.device:
    if [device.type for device in devices] != ["cuda"]:
        where = ", ".join(sorted(map(str, devices)))
        raise RuntimeError(f"cuda_graph: expected all models on one GPU, got {where}")
    return next(iter(devices))
