"""What the parts of a comparison make together: a result for each measure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from repsim_fast._core.versions import versions
from repsim_fast.comparison import diagnosis
from repsim_fast.comparison.engine import Engine
from repsim_fast.comparison.plan import Plan
from repsim_fast.comparison.playback import notes_with, settings_with
from repsim_fast.comparison.processes import Collected
from repsim_fast.comparison.recording import Recording
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.comparison.session import labelled, notes_of
from repsim_fast.data.batches import Feed
from repsim_fast.data.order import OrderCheck
from repsim_fast.similarity import Measure
from repsim_fast.similarity.base.accumulator import Accumulator, Similarities
from repsim_fast.similarity.streaming.several import Several


@dataclass(frozen=True)
class Parts:
    """What a comparison consists of.

    Attributes:
        members: Names of models and recordings, in the order of the result.
        recordings: Those of them that are recordings.
        plan: What is run, in one process or all.
        feed: The data.
        measures: A result is made for each.
        accumulator: What has been fed.
        engine: What has fed it.
        settings: As plain data, but for those of the recordings.
        start: When it began, by ``perf_counter``.
        notes: What one must know of the members.
    """

    members: Sequence[str]
    recordings: Mapping[str, Recording]
    plan: Plan
    feed: Feed
    measures: Sequence[Measure[Any]]
    accumulator: Accumulator
    engine: Engine
    settings: Mapping[str, Any]
    start: float
    notes: Sequence[str] = ()

    def results(self, collected: Collected, *, bare: bool) -> list[SimilarityResult]:
        """A result for each measure, of what all processes have seen.

        Args:
            collected: Of all processes.
            bare: The values alone, without what takes longer.
        """
        if collected.failure is not None:
            raise collected.failure
        notes = list(self._notes(collected))
        settings = dict(self.settings)
        if self.recordings:
            settings = settings_with(settings, self.recordings, tuple(self.members))
        rows = {name: run.kept for name, run in self.plan.run_of.items()}
        rows |= {playback.name: playback.rows for playback in self.engine.playbacks}
        computed = _computed(self.accumulator, bare=bare)
        return [
            SimilarityResult(
                measure=measure.info.name,
                estimator=description,
                settings={**settings, **found.settings},
                versions=versions(),
                seconds={"total": perf_counter() - self.start, **self.engine.seconds},
                order_digest=collected.seen.prints.order,
                sample_digests=collected.seen.prints.samples,
                **labelled(found, {name: rows[name] for name in self.members}, notes),
            )
            for measure, (description, found) in zip(self.measures, computed, strict=True)
        ]

    def _notes(self, collected: Collected) -> Iterator[str]:
        accumulator, feed = self.accumulator, self.feed
        of_samples = diagnosis.several_times(
            collected.seen.prints, passes=self.settings["passes"], replacement=feed.replacement
        )
        of_share = [diagnosis.of_one_process(feed.split_over)] if feed.split_over > 1 else []
        return notes_of(
            (
                *collected.notes,
                *self.notes,
                *of_share,
                *of_samples,
                *notes_with(self.recordings),
            ),
            collected.seen.dropped,
            sorted_by=_sorted_by(collected.seen.check, accumulator, collected.n_batches),
            replacement=feed.replacement,
            n_batches=collected.n_batches,
            estimator=accumulator.description,
            min_samples=accumulator.min_samples,
        )


def _computed(accumulator: Accumulator, *, bare: bool) -> list[tuple[str, Similarities]]:
    """Of each measure how it was estimated, and its values."""
    if isinstance(accumulator, Several):
        descriptions = [one.description for one in accumulator.members]
        return list(zip(descriptions, accumulator.compute_all(bare=bare), strict=True))
    return [(accumulator.description, accumulator.compute(bare=bare))]


def _sorted_by(check: OrderCheck | None, accumulator: Accumulator, n_batches: int) -> str | None:
    """What the data come sorted by, where that changes an estimate."""
    if check is None or not accumulator.samples_may_return or n_batches < 2:
        return None
    return check.sorted_by
