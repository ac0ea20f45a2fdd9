"""Sizes of a run that every experiment has; each adds its own to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from repsim_fast._core.precision import native_half


def mixed_precision(autocast: str | None, device: str) -> torch.dtype | None:
    """The dtype that a preset or a recipe asks for, on this machine."""
    if autocast == "auto":
        return native_half(torch.device(device))
    return None if autocast is None else getattr(torch, autocast)


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Sizes of a run; all that decides its numbers besides the code.

    Attributes:
        dataset: See ``datasets.find``.
        architecture: The usual network.
        seeds: Networks of each kind for the seed-to-seed baseline.
        train_images: None for all.
        epochs, batch_size, lr: Of every training.
        compare_batch: Images a Gram; a jackknife group is one batch.
        minutes: What it takes on the machine it is for.
        autocast: Dtype of mixed precision, None for none; "auto" for bfloat16 where the device
            multiplies it, since elsewhere that takes many times as long as float32.
        absolute: Whether the published absolute values may be expected (same network, same data).
    """

    name: str
    dataset: str
    architecture: str
    seeds: tuple[int, ...]
    train_images: int | None
    test_images: int
    epochs: int
    batch_size: int
    lr: float
    compare_batch: int
    minutes: int
    device: str = "cpu"
    autocast: str | None = None
    absolute: bool = False
    image_size: int | None = None

    @property
    def half(self) -> torch.dtype | None:
        """The dtype of mixed precision on this machine."""
        return mixed_precision(self.autocast, self.device)
