"""Images that an attack made, of whoever's code it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from .memory_format import is_ours

Attack = Callable[[Any, Tensor, Tensor], Tensor]


def attacked(whose: str, attack: Attack, model: Any, x: Tensor, y: Tensor) -> Tensor:
    """What an attack makes of ``x``, if it is an image for each of those: any would broadcast.

    Raises:
        TypeError, ValueError: It is something else; the message begins with ``whose``.
    """
    # Those of others may write on what they are given, which may be the caller's own data.
    images = attack(model, x, y) if is_ours(attack) else attack(model, x.clone(), y.clone())
    if not isinstance(images, Tensor) or not images.is_floating_point():
        kind = images.dtype if isinstance(images, Tensor) else type(images).__name__
        raise TypeError(f"{whose} must return a floating-point tensor of images, got {kind}")
    if images.shape != x.shape or images.device != x.device:
        raise ValueError(
            f"{whose} must return images of shape {tuple(x.shape)} on {x.device}, "
            f"got {tuple(images.shape)} on {images.device}"
        )
    return images
