"""Checks of what an attack was handed, with messages that name the argument."""

from __future__ import annotations

import torch
from torch import Tensor


def images_device(x: Tensor) -> torch.device:
    """Device of the images, a floating-point tensor."""
    if not isinstance(x, Tensor) or not x.is_floating_point():
        kind = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"x must be a floating-point tensor of images, got {kind}")
    return x.device


def check_labels(y: Tensor, x: Tensor) -> Tensor:
    """Labels as an ordinary int64 tensor (N,) on the device of ``x``."""
    if not isinstance(y, Tensor) or y.is_floating_point() or y.dtype == torch.bool:
        kind = y.dtype if isinstance(y, Tensor) else type(y).__name__
        raise TypeError(f"y must be an integer tensor of labels, got {kind}")
    if y.shape != (len(x),):
        raise ValueError(f"y must have shape ({len(x)},), got {tuple(y.shape)}")
    return y.detach().clone().to(x.device, torch.int64)


def check_logits(logits: Tensor, y: Tensor) -> None:
    """Labels within the model's classes, and no NaN in the model's first answer."""
    n_classes = logits.shape[1]
    lowest, highest, broken = torch.stack(
        (y.min(), y.max(), logits.isnan().any(1).sum())
    ).tolist()  # one transfer from the device for all three
    _check_range(n_classes, lowest, highest)
    if broken:
        raise ValueError(f"model returned NaN logits for {broken} of {len(y)} images")


def check_labels_below(n_classes: int, y: Tensor) -> None:
    """Labels within a number of classes that is known."""
    lowest, highest = torch.stack((y.min(), y.max())).tolist()
    _check_range(n_classes, lowest, highest)


def _check_range(n_classes: int, lowest: int, highest: int) -> None:
    if lowest < 0 or highest >= n_classes:
        raise ValueError(
            f"y must lie in [0, {n_classes - 1}], the model's classes, "
            f"got labels in [{lowest}, {highest}]"
        )
