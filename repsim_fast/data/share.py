"""Which batches one of several processes reads, so that all of them read each batch once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader, IterableDataset, Sampler


@dataclass(frozen=True)
class Share:
    """The share of one of ``size`` processes: of the batches, counted over all passes, those whose
    number leaves the rest ``rank``.

    Example:
        >>> from repsim_fast.data.share import Share
        >>> Share(1, 3).numbers(after=8, until=15)
        range(10, 15, 3)
    """

    rank: int = 0
    size: int = 1

    def numbers(self, *, after: int, until: int) -> range:
        """Numbers of the own batches from ``after`` on and before ``until``."""
        return range(after + (self.rank - after) % self.size, until, self.size)

    def of(self, stream: Iterable[Any], *, after: int) -> Iterable[Any]:
        """The own batches of one pass over a stream, which begins with the batch ``after``.

        Of a ``DataLoader`` of numbered samples nothing else is read; other streams are gone
        through, for nobody else knows what they give.
        """
        if self.size == 1:
            return stream
        skipped = (self.rank - after) % self.size
        if (
            type(stream) is not DataLoader
            or stream.batch_sampler is None
            or isinstance(stream.dataset, IterableDataset)
        ):
            return islice(stream, skipped, None, self.size)
        return DataLoader(
            stream.dataset,
            batch_sampler=_Every(stream.batch_sampler, skipped, self.size),
            num_workers=stream.num_workers,
            collate_fn=stream.collate_fn,
            pin_memory=stream.pin_memory,
            timeout=stream.timeout,
            worker_init_fn=stream.worker_init_fn,
            multiprocessing_context=stream.multiprocessing_context,
            generator=stream.generator,  # the order is drawn from it, the same in all processes
            prefetch_factor=stream.prefetch_factor,
        )


class _Every(Sampler[list[int]]):
    """Every so many batches of a batch sampler, after some."""

    def __init__(self, batches: Iterable[list[int]], skipped: int, step: int) -> None:
        self._batches, self._skipped, self._step = batches, skipped, step

    def __iter__(self) -> Iterator[list[int]]:
        return islice(self._batches, self._skipped, None, self._step)
