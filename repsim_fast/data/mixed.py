"""Two streams of labelled images at a fixed ratio, as labelled with pseudo-labelled ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from repsim_fast._core.processes import Processes

from .labels import alike
from .loaded import LoadedBatches
from .samples import Samples

if TYPE_CHECKING:
    Stream = Samples | LoadedBatches


@dataclass(frozen=True)
class Mixed:
    """Batches of which a fixed share comes from a second stream; an epoch is one of the first.

    Of the second stream each epoch draws as many images as it needs, in a new random order, again
    from the beginning where it ends (a loader: in its own order).
    """

    first_stream: Stream
    second_stream: Stream
    ratio: float

    @property
    def description(self) -> str:
        """What tells them from others: both streams and the share of the second."""
        share = self.ratio / (1 + self.ratio)
        first, second = self.first_stream.description, self.second_stream.description
        return f"{first} mixed with {second}, share {share:.6g}"

    def preview(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The first image, and the smallest and largest label that is seen of both streams."""
        image, span = self.first_stream.preview(device)
        _, other = self.second_stream.preview(device)
        return image, torch.stack(
            (torch.minimum(span[0], other[0]), torch.maximum(span[1], other[1]))
        )

    def reading(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        """As of the first stream."""
        return self.first_stream.reading(device)

    def batches(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """All of the first stream once, without the second."""
        return self.first_stream.batches(batch_size, device)

    def epoch(
        self, epoch: int, batch_size: int, device: torch.device, seed: int, group: Processes
    ) -> Iterator[tuple[Tensor, Tensor, float]]:
        """All of the first stream once: this process's share of each mixed batch, and its weight.

        Raises:
            ValueError: A second stream without a batch.
        """
        further = self._further(epoch, device, seed, group)
        n_first, n_second = self._sizes(batch_size)
        for x, y, weight in self.first_stream.epoch(epoch, n_first, device, seed, group):
            total = round(len(y) / weight)
            n = round(total * n_second / n_first)
            mine = len(range(group.rank, n, group.size))
            images, labels = further.take(mine, n, group)
            yield (
                torch.cat((x, images)),
                torch.cat(alike(y, labels)),
                (len(y) + mine) / (total + n),
            )

    def steps(self, batch_size: int, group: Processes) -> int:
        """Number of batches in an epoch."""
        return self.first_stream.steps(self._sizes(batch_size)[0], group)

    def share(self, group: Processes) -> Stream:
        """This process's part of the first stream."""
        return self.first_stream.share(group)

    def below(self, n_classes: int) -> Mixed:
        """The same, known or checked to have labels below ``n_classes``."""
        first, second = self.first_stream.below(n_classes), self.second_stream.below(n_classes)
        return replace(self, first_stream=first, second_stream=second)

    def split(self, share: float, seed: int) -> tuple[Mixed, Samples]:
        """Without a random ``share`` of the first stream, and that share.

        Raises:
            TypeError: The first stream is not in memory.
            ValueError: One of the two would be empty.
        """
        if not isinstance(self.first_stream, Samples):
            raise TypeError(
                "validation needs images in memory to hold out of, got a first stream of batches"
            )
        rest, held = self.first_stream.split(share, seed)
        return replace(self, first_stream=rest), held

    def some(self, n: int) -> Samples:
        """``n`` samples of the first stream."""
        return self.first_stream.some(n)

    def _sizes(self, batch_size: int) -> tuple[int, int]:
        """Images of the two streams in a batch of that size.

        Raises:
            ValueError: A batch too small to hold an image of each.
        """
        second = round(batch_size * self.ratio / (1 + self.ratio))
        if not 0 < second < batch_size:
            raise ValueError(
                f"batch_size: {batch_size} images are too few for an image of each stream, mixed "
                f"at a share of {self.ratio / (1 + self.ratio):g}"
            )
        return batch_size - second, second

    def _further(
        self, epoch: int, device: torch.device, seed: int, group: Processes
    ) -> _Drawn | _Read:
        if isinstance(self.second_stream, Samples):
            return _Drawn(self.second_stream, device, seed)
        return _Read(self.second_stream, device)


class _Drawn:
    """Images in memory, one random order after the other, the same in all processes."""

    def __init__(self, samples: Samples, device: torch.device, seed: int) -> None:
        self._samples, self._device = samples, device
        # Another stream than that of the first one's order.
        self._generator = torch.Generator().manual_seed((seed + 0x9E3779B9) % 2**63)
        self._rows = torch.zeros(0, dtype=torch.int64)

    def take(self, mine: int, n: int, group: Processes) -> tuple[Tensor, Tensor]:
        """The next ``n`` images' part of this process."""
        while len(self._rows) < n:
            order = torch.randperm(len(self._samples.labels), generator=self._generator)
            self._rows = torch.cat((self._rows, order))
        rows, self._rows = self._rows[:n], self._rows[n:]
        return self._samples.rows(group.share(rows), self._device)


class _Read:
    """Batches of a loader, taken apart: each process reads its own."""

    def __init__(self, loader: LoadedBatches, device: torch.device) -> None:
        self._loader, self._device = loader, device
        self._batches: Iterator[tuple[Tensor, Tensor]] = iter(())
        self._held: tuple[Tensor, Tensor] | None = None

    def take(self, mine: int, n: int, group: Processes) -> tuple[Tensor, Tensor]:
        """The next ``mine`` images."""
        while self._held is None or len(self._held[1]) < mine:
            images, labels = self._next()
            if self._held is not None:
                images = torch.cat((self._held[0], images))
                labels = torch.cat((self._held[1], labels))
            self._held = images, labels
        images, labels = self._held
        self._held = images[mine:], labels[mine:]
        return images[:mine], labels[:mine]

    def _next(self) -> tuple[Tensor, Tensor]:
        batch = next(self._batches, None)
        if batch is None:
            self._batches = self._loader.batches(0, self._device)
            batch = next(self._batches, None)
        if batch is None:
            raise ValueError(f"{self._loader.name} gave no batch")
        return batch
