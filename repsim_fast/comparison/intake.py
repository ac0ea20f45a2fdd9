"""The way of an activation from a layer's hook into the accumulator, and its row there."""

from __future__ import annotations

from collections.abc import Callable
from weakref import ref

from torch import Tensor

from repsim_fast.capture.features import Maps, feature_map
from repsim_fast.comparison import diagnosis
from repsim_fast.comparison.plan import Run
from repsim_fast.similarity.base.accumulator import Accumulator


class Intake:
    """Takes what the layers of all runs return; each layer has one row of the accumulator.

    Args:
        accumulator: Where features go.
        maps: What becomes of maps and tokens, as in ``Capture``.

    Attributes:
        rows_are_samples: Whether it is known before a batch that it brings a row for each sample.
        expected: Rows that every layer must bring in the current batch; None: as the first layer.
        n_batches: Batches that were taken whole.
    """

    def __init__(self, accumulator: Accumulator, maps: Maps) -> None:
        self.accumulator = accumulator
        self.rows_are_samples = maps in ("flatten", "pool")
        self.expected: int | None = None
        self.n_batches = 0
        self._to_features = feature_map(maps, any_order=accumulator.any_feature_order)
        self._maps_are_ours = not callable(maps)
        self._n_rows = 0

    def start_batch(self, n: int) -> None:
        """Expect the activations of n samples."""
        self.expected = n if self.rows_are_samples else None

    def taker(self, run: Run) -> Callable[[str, Tensor], None]:
        """The function that one run's hooks call with each activation."""
        accumulator, rows, to_features = self.accumulator, run.rows, self._to_features
        latest: Callable[[], Tensor | None] = _no_tensor
        latest_version = latest_row = 0

        def take(name: str, activation: Tensor) -> None:
            nonlocal latest, latest_version, latest_row
            if not run.running:
                return
            row = rows.get(name)
            version = -1 if activation.is_inference() else activation._version
            if latest() is activation and version == latest_version and run.taken > 0:
                # The very tensor of the layer before, as a block returns what its last layer did.
                row = self._new_row(run, name) if row is None else row
                accumulator.repeat(row, latest_row)
            else:
                features = to_features(activation)
                if not self._fits(run, name, features):
                    return
                row = self._new_row(run, name) if row is None else row
                accumulator.add(row, features)
            run.taken += 1
            if version >= 0:
                latest, latest_version, latest_row = ref(activation), version, row

        return take

    def _fits(self, run: Run, name: str, features: Tensor) -> bool:
        """Whether features have a row for each sample; if not, the layer is left out, or it is an
        error where the user asked for it."""
        if not self._maps_are_ours:
            diagnosis.check_features(run, name, features)
        if self.expected is None:
            self.expected = features.shape[0]
        if features.shape[0] == self.expected:
            return True
        if run.layers is not None or not self.rows_are_samples:
            hint = "" if self.rows_are_samples else " (choose such layers by layers=)"
            raise diagnosis.other_rows(run, name, len(features), self.expected, hint)
        run.skipped[name] = len(features)
        return False

    def _new_row(self, run: Run, name: str) -> int:
        if self.n_batches:
            raise diagnosis.new_layer(run, name, self.n_batches)
        run.rows[name] = self._n_rows
        self._n_rows += 1
        return self._n_rows - 1


def _no_tensor() -> None:
    """A weak reference to nothing."""
