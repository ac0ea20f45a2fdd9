"""Labelled images in memory, cut into batches on the fly."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from repsim_fast._core.checks import check_whole
from repsim_fast._core.nested import moved
from repsim_fast._core.pixels import unit_range
from repsim_fast._core.processes import Processes
from repsim_fast._core.randomness import seeded

from .labels import check_fit, check_labels, classes_of, placed_labels

_LOOKED_AT = 100
# Images in [0, 1], also with features injected or normalised by mean and deviation, stay far below;
# those in [0, 16], as scikit-learn's digits, or [0, 255] do not.
_WIDEST = 10.0


@dataclass(frozen=True)
class Samples:
    """Images (N, C, H, W), uint8 or float in [0, 1], and labels (N,), or soft ones
    (N, n_classes), kept where they are."""

    images: Tensor
    labels: Tensor

    @property
    def description(self) -> str:
        """What tells these samples from others: shape, dtype, and a checksum of labels and images.

        Of the images some, evenly spaced, are looked at: all of them may be many gigabytes.
        """
        some = _some(self.images)
        labels = placed_labels(self.labels, self.labels.device)
        sums = [zlib.crc32(_bytes(part)) for part in (labels, some)]
        shape, dtype = tuple(self.images.shape[1:]), str(self.images.dtype).removeprefix("torch.")
        return f"{len(self.labels)} images {shape} {dtype} ({sums[0]:08x} {sums[1]:08x})"

    def preview(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """The first image and the smallest and largest label, on ``device``."""
        image, _ = self._batch(slice(0, 1), device)
        classes = classes_of(self.labels)
        span = torch.stack((classes.min(), classes.max()))
        return image, span.to(device, torch.int64)

    def reading(self, device: torch.device) -> contextlib.AbstractContextManager[None]:
        """For going through ``batches``: nothing to keep."""
        return contextlib.nullcontext()

    def batches(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples once, in order; the last batch may be short."""
        check_whole(batch_size=batch_size)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        for start in range(0, len(self.labels), batch_size):
            yield self._batch(slice(start, start + batch_size), device)

    def epoch(
        self, epoch: int, batch_size: int, device: torch.device, seed: int, group: Processes
    ) -> Iterator[tuple[Tensor, Tensor, float]]:
        """All samples once in random order: this process's share of each batch, and its weight.

        A batch has ``batch_size`` samples over all processes. A last batch too small to give
        every process one, or with a single sample (BatchNorm could not train on it), is left out.
        """
        generator = seeded(seed)
        order = torch.randperm(len(self.labels), generator=generator).to(self.labels.device)
        for start in range(0, self.steps(batch_size, group) * batch_size, batch_size):
            rows = order[start : start + batch_size]
            mine = group.share(rows)
            yield *self._batch(mine, device), len(mine) / len(rows)

    def steps(self, batch_size: int, group: Processes) -> int:
        """Number of batches in an epoch."""
        whole, rest = divmod(len(self.labels), batch_size)
        return whole + (rest >= 2 * group.size or (whole == 0 and rest >= group.size))

    def share(self, group: Processes) -> Samples:
        """This process's part; all of it where there are fewer samples than processes."""
        if len(self.labels) < group.size:
            return self
        return Samples(group.share(self.images), group.share(self.labels))

    def below(self, n_classes: int) -> Samples:
        """The same, known to have labels of ``n_classes`` classes.

        Raises:
            ValueError: Soft labels of another number of classes.
        """
        check_fit("train_data", self.labels, n_classes)
        return self

    def split(self, share: float, seed: int) -> tuple[Samples, Samples]:
        """The samples without a random ``share`` of them, and that share, both in their order.

        Raises:
            ValueError: One of the two would be empty.
        """
        n = len(self.labels)
        n_held = round(share * n)
        if not 0 < n_held < n:
            raise ValueError(f"validation: a share of {share:g} of {n} images is {n_held} of them")
        order = torch.randperm(n, generator=seeded(seed))
        parts = (order[n_held:].sort().values, order[:n_held].sort().values)
        rest, held = (part.to(self.labels.device) for part in parts)
        return (
            Samples(self.images[rest], self.labels[rest]),
            Samples(self.images[held], self.labels[held]),
        )

    def some(self, n: int) -> Samples:
        """``n`` samples, or as many as there are, evenly spaced: the first may be of one class."""
        total = len(self.labels)
        rows = torch.arange(min(n, total)) * total // min(n, total)
        return Samples(*(part[rows.to(part.device)] for part in (self.images, self.labels)))

    def rows(self, rows: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        """Some of the samples, on ``device``."""
        return self._batch(rows.to(self.labels.device), device)

    def _batch(self, index: Tensor | slice, device: torch.device) -> tuple[Tensor, Tensor]:
        return placed(self.images[index], self.labels[index], device)


def _bytes(values: Tensor) -> bytes:
    held: bytes = values.cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return held


def placed(images: Tensor, labels: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    """Float images in [0, 1] and their labels, on ``device``, apart from what made them."""
    images = moved(images.detach(), device)
    if not images.is_floating_point():
        images = unit_range(images)
    return images, placed_labels(labels.detach(), device)


def check_types(name: str, images: Tensor, labels: Tensor) -> None:
    """Images and labels of dtypes that can be trained on, one label for each image.

    Raises:
        TypeError: Another dtype.
        ValueError: No samples, not one label for each image, or soft labels that are none.
    """
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"{name}: images must be uint8 or floating point, got {images.dtype}")
    check_labels(name, labels, len(images) if images.ndim else 0)


def check_range(name: str, images: Tensor) -> None:
    """Float images that can be meant to lie in [0, 1]; some, evenly spaced, are looked at.

    Values somewhat outside, as of injected features, are left to what the images are for.

    Raises:
        ValueError: They lie in another range, such as 0 to 255.
    """
    some = _some(images.detach())
    if not some.is_floating_point() or not some.numel():
        return
    low, high = (float(value) for value in some.aminmax())
    if max(-low, high) > _WIDEST:
        raise ValueError(
            f"{name}: floating point images must lie in [0, 1], got values in [{low:g}, {high:g}]: "
            "divide by the largest possible value, or give uint8 images (0 to 255)"
        )


def _some(images: Tensor) -> Tensor:
    return images[:: max(1, len(images) // _LOOKED_AT)]
