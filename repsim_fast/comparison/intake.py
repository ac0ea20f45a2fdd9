"""The way of an activation from a layer's hook into the accumulator, and its row there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple
from weakref import ref

import torch
from torch import Tensor

from repsim_fast.capture import Forms, UnfitError
from repsim_fast.comparison import diagnosis
from repsim_fast.comparison.plan import Run
from repsim_fast.similarity.base.accumulator import Taker

_LOOKED_AT = 4  # samples


class TooFewRowsError(Exception):
    """A batch whose features have fewer rows than the measure needs."""

    def __init__(self, rows: int) -> None:
        super().__init__(f"{rows} rows")
        self.rows = rows


class Intake:
    """Takes what the layers of all runs return; each layer has one row of the accumulator.

    Args:
        accumulator: Where features go.
        rows_are_samples: Whether it is known before a batch that it brings a row for each sample.

    Attributes:
        expected: Rows that every layer must bring in the current batch; None: as the first layer.
        n_batches: Batches that were taken whole.
    """

    def __init__(self, accumulator: Taker, *, rows_are_samples: bool) -> None:
        self.accumulator = accumulator
        self.rows_are_samples = rows_are_samples
        self.expected: int | None = None
        self.n_batches = 0
        self._kinds: list[_Kind] = []  # of features, by row

    def start_batch(self, n: int) -> None:
        """Expect the activations of n samples."""
        self.expected = n if self.rows_are_samples else None

    def taker(self, run: Run, forms: Forms) -> Callable[[str, Tensor], None]:
        """The function that one run's hooks call with each activation."""
        accumulator, rows, skipped = self.accumulator, run.rows, run.skipped
        latest: Callable[[], Tensor | None] = _no_tensor
        latest_version = latest_row = 0
        looked_at: Tensor | None = None
        altered: set[str] = set()  # layers that show a tensor of the layer before, but changed

        def same(name: str, activation: Tensor, version: int) -> bool:
            """Whether it is the very tensor of the layer before, as a block returns what its last
            layer did."""
            if latest() is not activation or version != latest_version or name in altered:
                return False
            # What is done to x.data leaves no trace in the version.
            if looked_at is not None and not torch.equal(looked_at, _some(activation)):
                altered.add(name)
                return False
            return bool(run.taken)

        def take(name: str, activation: Tensor) -> None:
            nonlocal latest, latest_version, latest_row, looked_at
            if not run.running or name in skipped:
                return
            row = rows.get(name)
            if row is None and self.n_batches:
                why = f"not called in the first batch, but in batch {self.n_batches}"
                self._leave_out(run, name, why)
                return
            version = -1 if activation.is_inference() else activation._version
            if same(name, activation, version):
                row = self._new_row(run, name, self._kinds[latest_row]) if row is None else row
                accumulator.repeat(row, latest_row)
            else:
                features = self._features(run, forms, name, activation)
                if features is None:
                    return
                row = self._new_row(run, name, _kind(features)) if row is None else row
                accumulator.add(row, features)
            run.taken.add(name)
            if version >= 0:
                latest, latest_version, latest_row = ref(activation), version, row
                # In the first batch alone: on a GPU a look at each would wait for it.
                looked_at = None if self.n_batches else _some(activation).clone()

        return take

    def end_pass(self, run: Run, number: int) -> None:
        """Leave out layers that a pass has not brought as the batches before did, for good."""
        for name in run.rows.keys() - run.taken - run.skipped.keys():
            self._leave_out(run, name, f"called in the first batch, but not in batch {number}")
        for name in run.rows.keys() & run.skipped.keys():
            # Every batch must bring every row; those of these layers do not come out.
            row = run.rows[name]
            self.accumulator.add(row, self._kinds[row].zeros(self.expected or 0))

    def wide_layers(self, run: Run) -> list[str]:
        """Layers of a run whose features have 32 bits."""
        return [name for name, row in run.kept.items() if self._kinds[row].dtype == torch.float32]

    def new_rows(self, count: int) -> Sequence[int]:
        """Rows of the accumulator for so many layers that no run brings."""
        first = len(self._kinds)
        self._kinds += [_Kind(torch.Size(), torch.float32, torch.device("cpu"))] * count
        return range(first, first + count)

    def _features(self, run: Run, forms: Forms, name: str, activation: Tensor) -> Tensor | None:
        """Features of a layer, with a row for each that the others have; None if it is left out."""
        try:
            features = forms.features(name, activation)
        except UnfitError as error:
            self._leave_out(run, name, str(error))
            return None
        if callable(forms.maps):
            diagnosis.check_features(run, name, features)
        rows = features.shape[0]
        if self.expected is None:
            self.expected = rows
            if rows < self.accumulator.min_samples:
                raise TooFewRowsError(rows)
        if rows == self.expected:
            return features
        why = f"{rows} rows where {self.expected} are expected"
        if not self.rows_are_samples:
            raise diagnosis.unfit(run, name, why, " (choose such layers by layers=)")
        self._leave_out(run, name, why)
        return None

    def _leave_out(self, run: Run, name: str, why: str) -> None:
        """Leave a layer out from the first batch on, or raise if the user asked for it."""
        if run.layers is not None:
            raise diagnosis.unfit(run, name, why)
        run.skipped[name] = why

    def _new_row(self, run: Run, name: str, kind: _Kind) -> int:
        run.rows[name] = len(self._kinds)
        self._kinds.append(kind)
        return run.rows[name]


def _some(activation: Tensor) -> Tensor:
    """What is remembered of an activation, to see it changed: a few samples in full."""
    return activation[:_LOOKED_AT] if activation.ndim else activation


class _Kind(NamedTuple):
    """What features of a layer are like, beside their number of rows."""

    shape: torch.Size
    dtype: torch.dtype
    device: torch.device

    def zeros(self, rows: int) -> Tensor:
        return torch.zeros(rows, *self.shape, dtype=self.dtype, device=self.device)


def _kind(features: Tensor) -> _Kind:
    return _Kind(features.shape[1:], features.dtype, features.device)


def _no_tensor() -> None:
    """A weak reference to nothing."""
