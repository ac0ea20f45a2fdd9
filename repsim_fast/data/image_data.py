"""A labelled image set held in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.utils.data import Dataset

from repsim_fast._core.pixels import unit_range

from .request import sample_rows


@dataclass(frozen=True, eq=False, repr=False)
class ImageData(Dataset[tuple[Tensor, int]]):
    """A labelled image set held in memory as bytes, served as floats in [0, 1].

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64, in 0 .. len(classes) - 1.
        classes: name of each class.
        name: name of the data set, used in results.
        split: "train" or "test".

    Raises:
        TypeError: images not uint8 or labels not int64.
        ValueError: shapes that do not belong together, or a label without a class.

    Example:
        >>> from repsim_fast import data
        >>> digits = data.load("digits", "test")
        >>> for images, labels in digits.batches(128):
        ...     print(images.shape, labels.shape)
        ...     break
        torch.Size([128, 1, 8, 8]) torch.Size([128])
    """

    images: Tensor  # (N, C, H, W) uint8
    labels: Tensor  # (N,) int64
    classes: tuple[str, ...]
    name: str
    split: str

    def __post_init__(self) -> None:
        for field, wanted in (("images", torch.uint8), ("labels", torch.int64)):
            got = getattr(self, field).dtype
            if got != wanted:
                raise TypeError(f"{field} must be {wanted}, got {got}")
        if self.images.ndim != 4:
            raise ValueError(f"images must be (N, C, H, W), got shape {tuple(self.images.shape)}")
        if self.labels.shape != self.images.shape[:1]:
            raise ValueError(
                f"labels must be one for each of the {len(self.images)} images, "
                f"got shape {tuple(self.labels.shape)}"
            )
        outside = (self.labels < 0) | (self.labels >= len(self.classes))
        if outside.any():
            row = int(outside.nonzero()[0])
            raise ValueError(
                f"labels must lie in 0..{len(self.classes) - 1} ({len(self.classes)} classes), "
                f"got {int(self.labels[row])} at row {row}"
            )

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return unit_range(self.images[index]), int(self.labels[index])

    def __repr__(self) -> str:
        shape = "x".join(str(n) for n in self.images.shape[1:])
        return (
            f"ImageData({self.name} {self.split}: {len(self)} images {shape}, "
            f"{len(self.classes)} classes)"
        )

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Return all images as float32 (N, C, H, W) in [0, 1], and the labels (N,)."""
        return unit_range(self.images), self.labels

    def to(self, device: torch.device | str) -> ImageData:
        """Return the same set on `device`, where `batches` then serves it without a transfer."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def subset(self, n: int, seed: int = 0) -> ImageData:
        """Return `n` images drawn without replacement, in their order here.

        With one seed, the images of a smaller subset are among those of a larger one.

        Raises:
            ValueError: n outside 1 .. len(self).
        """
        if not 1 <= n <= len(self):
            raise ValueError(f"n must lie in 1..{len(self)}, got {n}")
        rows = torch.from_numpy(sample_rows(len(self), n, seed)).to(self.labels.device)
        return replace(self, images=self.images[rows], labels=self.labels[rows])

    def take(self, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Images of some rows as float32 in [0, 1], and their labels, on the set's device."""
        if isinstance(rows, Tensor):
            rows = rows.to(self.labels.device)
        return unit_range(self.images[rows]), self.labels[rows]

    def batches(
        self,
        batch_size: int,
        *,
        shuffle: bool = False,
        generator: torch.Generator | None = None,
        drop_last: bool = False,
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate once over the set, without the per-image cost of a DataLoader.

        Args:
            batch_size: images in a batch; the last one has what is left.
            shuffle: draw a new order from `generator`, which it then needs.
            generator: CPU generator; it advances, so the next call gives another order.
            drop_last: leave a shorter last batch out.

        Returns:
            Iterator over (float32 (B, C, H, W) in [0, 1], int64 (B,)), on the set's device.

        Raises:
            ValueError: batch_size below 1, or shuffle without a generator.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if shuffle and generator is None:
            raise ValueError("shuffle=True needs a generator: the global random state stays as is")
        order = None
        if shuffle:
            order = torch.randperm(len(self), generator=generator)
        return self._serve(batch_size, order, drop_last)

    def _serve(
        self, batch_size: int, order: Tensor | None, drop_last: bool
    ) -> Iterator[tuple[Tensor, Tensor]]:
        end = len(self) - len(self) % batch_size if drop_last else len(self)
        for start in range(0, end, batch_size):
            rows = slice(start, start + batch_size)
            yield self.take(rows if order is None else order[rows])
