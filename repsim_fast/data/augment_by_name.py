"""Augmentation of training batches, by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repsim_fast.data import augment as shift_and_flip

Augment = Callable[[Tensor, torch.Generator], Tensor]


def get(augment: str | Augment | None) -> Augment:
    """Augmentation by name, ``augment`` itself when it is callable, or none."""
    if augment is None:
        return lambda images, generator: images
    if callable(augment):
        return augment
    if augment not in ("crop", "crop+flip"):
        raise ValueError(
            f"augment must be 'crop', 'crop+flip', a callable or None, got {augment!r}"
        )

    def crop(images: Tensor, generator: torch.Generator) -> Tensor:
        padding = max(1, images.shape[-1] // 8)
        return shift_and_flip(
            images, generator=generator, padding=padding, flip=augment == "crop+flip"
        )

    return crop
