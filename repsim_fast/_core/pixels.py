"""Images of bytes as numbers."""

from __future__ import annotations

from torch import Tensor


def unit_range(images: Tensor) -> Tensor:
    """Float32 images in [0, 1] of uint8 ones, of the same bits on every device.

    Divided by a tensor that lies where they do: in place of dividing by a number torch multiplies
    by its inverse on a GPU, which misses 126 of the 256 values by a rounding.
    """
    wide = images.float()
    return wide.div_(wide.new_full((), 255.0))
