"""Training augmentation of whole batches."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Augment = Callable[[Tensor, torch.Generator], Tensor]
"""(images (N, C, H, W), generator) -> images, as many."""


def augment(
    images: Tensor, *, generator: torch.Generator, padding: int = 4, flip: bool = True
) -> Tensor:
    """Shift each image by its own random offset and flip half of them left to right.

    The usual CIFAR augmentation: pad with zeros, crop at the old size, flip with probability 1/2.

    Args:
        images: (N, C, H, W), any dtype and device; left unchanged.
        generator: source of the offsets and flips, on any device.
        padding: largest shift in pixels, at least 0.
        flip: False where mirror images mean something else, as for digits.

    Returns:
        Tensor of the same shape, dtype and device.

    Raises:
        ValueError: images not four-dimensional, or negative padding.

    References:
        He et al., "Deep residual learning for image recognition", section 4.2, 2016.
    """
    if images.ndim != 4:
        raise ValueError(f"images must be (N, C, H, W), got shape {tuple(images.shape)}")
    if padding < 0:
        raise ValueError(f"padding must be at least 0, got {padding}")
    n, _, height, width = images.shape
    offsets = _integers(2 * padding + 1, (2, n), generator).to(images.device)
    padded = F.pad(images, (padding,) * 4)
    # Every crop as a view (N, C, row, column, H, W), then one gather of the drawn ones.
    crops = padded.unfold(2, height, 1).unfold(3, width, 1)
    cropped = crops[torch.arange(n, device=images.device), :, offsets[0], offsets[1]]
    if flip:
        flipped = _integers(2, (n,), generator).to(images.device).nonzero().squeeze(1)
        cropped[flipped] = cropped[flipped].flip(3)
    return cropped


def _integers(end: int, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    return torch.randint(0, end, shape, generator=generator, device=generator.device)


def get(augmentation: str | Augment | None) -> Augment:
    """Augmentation of training batches by name, ``augmentation`` itself if callable, or none.

    "crop" shifts by an eighth of the side, "crop+flip" also flips.

    Raises:
        ValueError: No such name.
    """
    if augmentation is None:
        return lambda images, generator: images
    if callable(augmentation):
        return augmentation
    if augmentation not in ("crop", "crop+flip"):
        raise ValueError(
            f"augment must be 'crop', 'crop+flip', a callable or None, got {augmentation!r}"
        )

    def crop(images: Tensor, generator: torch.Generator) -> Tensor:
        padding = max(1, images.shape[-1] // 8)
        return augment(
            images, generator=generator, padding=padding, flip=augmentation == "crop+flip"
        )

    return crop
