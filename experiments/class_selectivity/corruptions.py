"""Corrupted images, made: of plain torch at any size, or of the package."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from repsim_fast.attacks.corruptions import Corruption
from repsim_fast.attacks.corruptions import names as corruption_names

SEVERITIES = (1, 2, 3, 4, 5)


def _noise(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    return x + 0.05 * severity * torch.randn(x.shape, generator=generator)


def _impulse(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    draw = torch.rand(x.shape, generator=generator)
    share = 0.03 * severity
    return torch.where(draw < share, torch.where(draw < share / 2, 0.0, 1.0), x)


def _blur(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return x + severity / 5 * (blurred - x)


def _contrast(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    middle = x.mean((1, 2, 3), keepdim=True)
    return middle + (1 - 0.16 * severity) * (x - middle)


def _brightness(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    return x + 0.1 * severity


def _coarse(x: Tensor, severity: int, generator: torch.Generator) -> Tensor:
    height, width = (max(2, round(s * (1 - 0.13 * severity))) for s in x.shape[2:])
    small = F.interpolate(x, (height, width), mode="bilinear", antialias=True)
    return F.interpolate(small, x.shape[2:], mode="bilinear")


SIMPLE: Mapping[str, Callable[[Tensor, int, torch.Generator], Tensor]] = {
    "noise": _noise, "impulse noise": _impulse, "blur": _blur, "contrast": _contrast,
    "brightness": _brightness, "low resolution": _coarse,
}  # fmt: skip
"""Six kinds that any image has room for: 8 x 8 digits are too small for the package."""


def kinds(source: str) -> tuple[str, ...]:
    """Names of the corruptions of a source, "simple" or "package".

    Raises:
        ImportError: The package is missing.
    """
    return tuple(SIMPLE) if source == "simple" else tuple(corruption_names())


def corrupted(source: str, kind: str, severity: int, x: Tensor) -> Tensor:
    """Images (N, C, H, W) of a kind and severity, the same ones every time."""
    if source != "simple":
        images: Tensor = Corruption(kind, severity=severity, seed=0)(None, x, torch.zeros(len(x)))
        return images
    generator = torch.Generator().manual_seed(severity)
    return SIMPLE[kind](x, severity, generator).clamp(0, 1)


def blend(of_kinds: Sequence[Tensor]) -> Tensor:
    """Image i of kind i modulo their number: all kinds at once, on the images of one set."""
    number = torch.arange(len(of_kinds[0])) % len(of_kinds)
    blended = of_kinds[0].clone()
    for kind, images in enumerate(of_kinds):
        blended[number == kind] = images[number == kind]
    return blended
