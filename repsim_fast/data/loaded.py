"""Labelled images that come in batches of their own, as from a ``DataLoader``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.inputs import LABEL_NAMES
from repsim_fast._core.processes import Processes
from repsim_fast._core.randomness import private_rng

from .afresh import afresh
from .batches import open_data
from .labels import check_fit, classes_of
from .samples import Samples, check_range, check_types, placed


@dataclass(frozen=True)
class LoadedBatches:
    """Batches (images, labels) in the order in which ``source`` gives them, each time anew.

    Attributes:
        source: Iterable with a length, its number of batches.
        name: What messages call it.
        n_classes: What labels must be of; None as long as it is not known.
    """

    source: Iterable[Any]
    name: str
    n_classes: int | None = None

    @property
    def description(self) -> str:
        """What tells them from others: their number, their source and the shape of an image."""
        image, _ = self.preview(torch.device("cpu"))
        return f"{len(self)} batches of a {type(self.source).__name__}, {tuple(image.shape[1:])}"

    def __len__(self) -> int:
        return len(self.source)  # type: ignore[arg-type]

    def preview(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The first image, and the smallest and largest label of its batch, on ``device``."""
        with self.reading(device):
            for x, y in self.batches(0, device):
                classes = classes_of(y)
                return x[:1], torch.stack((classes.min(), classes.max()))
        raise ValueError(f"{self.name} gave no batch")

    def reading(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        """For going through ``batches`` but not ``epoch``: without a trace in global random state.

        A loader draws its order, and a data set its augmentation, from the global generators.
        """
        return private_rng(device, 0)

    def batches(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """All batches once; ``batch_size`` is the source's own.

        Raises:
            TypeError, ValueError: A batch of something else, or not as many as the length says, by
                which schedules go.
        """
        given = 0
        # Of the comparison's feed: what is a batch is the same in both.
        for number, batch in enumerate(
            open_data(_Pairs(self.source, self.name), batch_size=1, passes=1, seed=0).batches
        ):
            if number == len(self):
                raise ValueError(f"{self.name} gave more batches than its length, {len(self)}")
            if not isinstance(batch.x, Tensor) or not isinstance(batch.y, Tensor):
                raise TypeError(
                    f"{self.name}: batch {number} must be a pair of tensors (images, labels), got "
                    f"{type(batch.x).__name__} and {type(batch.y).__name__}"
                )
            check_types(f"{self.name}: batch {number}", batch.x, batch.y)
            if number == 0:  # a look at each would have a GPU wait
                check_range(f"{self.name}: batch 0", batch.x)
            if self.n_classes is not None:
                check_fit(f"{self.name}: batch {number}", batch.y, self.n_classes)
            yield placed(batch.x, batch.y, device)
            given += 1
        if given < len(self):
            raise ValueError(
                f"{self.name} gave fewer batches than its length, {len(self)}: {given}"
            )

    def epoch(
        self, epoch: int, batch_size: int, device: torch.device, seed: int, group: Processes
    ) -> Iterator[tuple[Tensor, Tensor, float]]:
        """All batches once, each with its weight among those of all processes.

        Every process goes through its own source; a sampler with ``set_epoch``, such as torch's
        ``DistributedSampler``, is told the epoch.
        """
        set_epoch = getattr(getattr(self.source, "sampler", None), "set_epoch", None)
        if set_epoch is not None:
            set_epoch(epoch)
        for x, y in self.batches(batch_size, device):
            weight = 1.0
            if group.size > 1:
                n = torch.tensor(float(len(y)), device=device)
                weight = len(y) / group.sum(n).item()
            yield x, y, weight

    def steps(self, batch_size: int, group: Processes) -> int:
        """Number of batches in an epoch."""
        return len(self)

    def share(self, group: Processes) -> LoadedBatches:
        """This process's part: what its own source gives."""
        return self

    def below(self, n_classes: int) -> LoadedBatches:
        """The same, checked batch by batch to have labels of ``n_classes`` classes."""
        return replace(self, n_classes=n_classes)

    def some(self, n: int) -> Samples:
        """The first ``n`` samples, or as many as there are."""
        images, labels, held = [], [], 0
        with self.reading(torch.device("cpu")):
            for x, y in self.batches(0, torch.device("cpu")):
                images.append(x)
                labels.append(y)
                held += len(y)
                if held >= n:
                    break
        return Samples(torch.cat(images)[:n], torch.cat(labels)[:n])


@dataclass(frozen=True)
class _Pairs:
    """The batches of a source as pairs: of images and labels by name, or beside sample numbers."""

    source: Iterable[Any]
    name: str

    def __iter__(self) -> Iterator[Any]:
        for number, item in enumerate(afresh(self.source)):
            yield self._pair(item, number)

    def _pair(self, item: Any, number: int) -> Any:
        if isinstance(item, Mapping):
            labels = [name for name in LABEL_NAMES if name in item]
            images = [
                name
                for name, value in item.items()
                if name not in LABEL_NAMES and isinstance(value, Tensor) and value.ndim > 2
            ]
            if len(images) != 1 or len(labels) != 1:
                raise TypeError(
                    f"{self.name}: batch {number} must have images and labels (one of "
                    f"{', '.join(LABEL_NAMES)}), got a mapping of {sorted(map(str, item))}"
                )
            return item[images[0]], item[labels[0]]
        if isinstance(item, tuple | list) and len(item) == 3:
            index = item[2]
            if not isinstance(index, Tensor) or index.is_floating_point() or index.ndim != 1:
                raise TypeError(
                    f"{self.name}: batch {number} must be (images, labels) or (images, labels, "
                    "numbers of the samples), got a third part of another kind, which would be "
                    "ignored"
                )
            return item[0], item[1]
        return item
