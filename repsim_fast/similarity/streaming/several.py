"""Several measures of the same layers, in one pass over the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from repsim_fast._core.processes import Processes
from repsim_fast.ops import Precision
from repsim_fast.similarity.base.accumulator import Accumulator, Similarities
from repsim_fast.similarity.base.measure import Measure
from repsim_fast.similarity.streaming.samples import SampleAccumulator, SampleMeasure


class Several:
    """Accumulators of several measures as one; those that keep samples keep them once.

    Args:
        measures: At least one.
        options: As for ``Measure.accumulator``; ``jackknife`` and ``permutations`` are for the
            measures that have them.
    """

    def __init__(
        self,
        measures: Sequence[Measure[Any]],
        *,
        precision: Precision | None,
        jackknife: int | None,
        permutations: int | None,
        seed: int,
        capacity: int,
    ) -> None:
        self.members: list[Accumulator] = []
        for measure in measures:
            resampled = isinstance(measure, SampleMeasure)
            self.members.append(
                measure.accumulator(
                    precision=precision,
                    jackknife=jackknife if resampled else None,
                    permutations=permutations if resampled else None,
                    seed=seed,
                    capacity=capacity,
                )
            )
        keeping = [one for one in self.members if isinstance(one, SampleAccumulator)]
        # The one that keeps samples comes last: what is not finite has raised before it keeps any.
        self._fed = [one for one in self.members if one not in keeping]
        self._fed += keeping[:1]
        self._keeping = keeping
        self.description = ", ".join(one.description for one in self.members)
        self.min_samples = max(one.min_samples for one in self.members)
        self.any_feature_order = all(one.any_feature_order for one in self.members)
        self.samples_may_return = all(one.samples_may_return for one in self.members)
        self.capturable = all(one.capturable for one in self.members)

    centering = None  # of Grams there is one measure, and no other could use them

    def add_grams(self, first: int, grams: Tensor, scales: Sequence[Tensor]) -> None:
        """Raises TypeError: not all measures can use a Gram."""
        raise TypeError(f"several measures take features, got Grams of layers from {first} on")

    def add(self, layer: int, features: Tensor) -> None:
        """Take the features of one layer."""
        for one in self._fed:
            one.add(layer, features)

    def repeat(self, layer: int, of: int) -> None:
        """Take the features of another layer for this one too."""
        for one in self._fed:
            one.repeat(layer, of)

    def end_batch(self, n: int, *, of: int | None = None, number: int | None = None) -> None:
        """Close a batch in all."""
        for one in self._fed:
            one.end_batch(n, of=of, number=number)

    def pool(self, layers: Sequence[int], processes: Processes) -> None:
        """Become in the first process what one would be that had been given all batches."""
        # Other processes wait until all have sent, whatever became of one.
        failures = [_pooled(one, layers, processes) for one in self._fed]
        for failure in filter(None, failures):
            raise failure

    def compute(self, *, bare: bool = False) -> Similarities:
        """Similarities of the first measure."""
        return self.compute_all(bare=bare)[0]

    def compute_all(self, *, bare: bool = False) -> list[Similarities]:
        """Similarities of each measure."""
        for one in self._keeping[1:]:
            one.use_samples_of(self._keeping[0])
        return [one.compute(bare=bare) for one in self.members]


def _pooled(one: Accumulator, layers: Sequence[int], processes: Processes) -> Exception | None:
    """Why pooling failed, if it did."""
    try:
        one.pool(layers, processes)
    except Exception as error:
        return error
    return None
