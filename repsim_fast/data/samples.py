"""Training data in memory, cut into batches on the fly."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.processes import Processes


@dataclass(frozen=True)
class Samples:
    """Images (N, C, H, W), uint8 or float in [0, 1], and labels (N,), kept where they are."""

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, index: Tensor | slice, device: torch.device) -> tuple[Tensor, Tensor]:
        """Float images in [0, 1] and int64 labels of some samples, on ``device``."""
        images = self.images[index].to(device, non_blocking=True)
        if not images.is_floating_point():
            images = images.float() / 255
        return images, self.labels[index].to(device, torch.int64, non_blocking=True)

    def batches(self, batch_size: int, device: torch.device) -> Iterator[tuple[Tensor, Tensor]]:
        """All samples once, in order; the last batch may be short."""
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        for start in range(0, len(self), batch_size):
            yield self.batch(slice(start, start + batch_size), device)

    def shuffled(
        self,
        batch_size: int,
        device: torch.device,
        generator: torch.Generator,
        group: Processes,
    ) -> Iterator[tuple[Tensor, Tensor, float]]:
        """All samples once in random order: this process's share of each batch, and its weight.

        A batch has ``batch_size`` samples over all processes. A last batch too small to give
        every process one, or with a single sample (BatchNorm could not train on it), is left out.
        """
        order = torch.randperm(len(self), generator=generator).to(self.labels.device)
        for start in range(0, self.steps(batch_size, group) * batch_size, batch_size):
            rows = order[start : start + batch_size]
            mine = group.share(rows)
            yield *self.batch(mine, device), len(mine) / len(rows)

    def steps(self, batch_size: int, group: Processes) -> int:
        """Number of batches that ``shuffled`` gives."""
        whole, rest = divmod(len(self), batch_size)
        return whole + (rest >= 2 * group.size or (whole == 0 and rest >= group.size))


def samples(data: Any, name: str = "data") -> Samples:
    """``data`` as ``Samples``: an ImageData (``.images``, ``.labels``) or a pair of tensors.

    Raises:
        TypeError: Anything else.
        ValueError: No samples, or not one label for each image.
    """
    if isinstance(data, Samples):
        return data
    if hasattr(data, "images") and hasattr(data, "labels"):
        images, labels = data.images, data.labels
    elif isinstance(data, (tuple, list)) and len(data) == 2:
        images, labels = data
    else:
        raise TypeError(
            f"{name} must have .images and .labels (repsim_fast.data.ImageData) or be a pair of "
            f"tensors (images, labels), got {type(data).__name__}"
        )
    if not isinstance(images, Tensor) or not isinstance(labels, Tensor):
        raise TypeError(
            f"{name} must hold tensors, got {type(images).__name__} and {type(labels).__name__}"
        )
    if images.dtype != torch.uint8 and not images.is_floating_point():
        raise TypeError(f"{name}: images must be uint8 or floating point, got {images.dtype}")
    if labels.is_floating_point() or labels.dtype == torch.bool:
        raise TypeError(f"{name}: labels must be integers, got {labels.dtype}")
    if len(images) == 0 or labels.shape != (len(images),):
        raise ValueError(
            f"{name} must hold at least one image and one label for each, got "
            f"{tuple(images.shape)} images and {tuple(labels.shape)} labels"
        )
    return Samples(images, labels)
