"""Procedural Gabor noise with adversarial weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .rendering import RenderingAttack, Scene, uniform

_KERNEL = 23
_DENSITY = 1 / 14  # share of pixels that carry a kernel
_CONTRAST_FLOOR = 1e-3


class GaborAttack(RenderingAttack):
    """Gabor noise (Co et al., 2019) of adversarial weights (Kang et al., 2019): x + eps noise(w).

    Each image has a random kernel (1 to 10 orientations of one frequency and width) at a random
    1/14 of its pixels; their weights w in [-1, 1] are attacked. The noise is equalised in contrast
    and scaled to [0, 1], as published: it brightens.

    Args:
        eps: Largest change of a pixel; published 75/255.
        steps: Published 4 in training, 10 (default) in evaluation.
        step_size: Sign step on weights; published 0.08 in training, 0.05 (default) in evaluation.
        options: ``loss`` and ``seed`` as in ``PGD``.
    """

    def __init__(
        self, eps: float = 75 / 255, *, steps: int = 10, step_size: float = 0.05, **options: object
    ) -> None:
        super().__init__(eps, steps=steps, step_size=step_size, **options)  # type: ignore[arg-type]

    def _scene(self, x: Tensor, generator: torch.Generator) -> Scene:
        n, _, height, width = x.shape
        kernels = _kernels(n, x, generator)
        carries = uniform((n, height, width), x, generator) < _DENSITY
        # At least one kernel an image: small images could miss all.
        carries[:, height // 2, width // 2] |= ~carries.flatten(1).any(1)
        start = (2 * uniform((n, height, width), x, generator) - 1) * carries

        def render(weights: Tensor) -> Tensor:
            noise = torch.nn.functional.conv2d(
                weights.unsqueeze(0), kernels, groups=n, padding=_KERNEL // 2
            ).squeeze(0)
            return x + self.eps * _equalised(noise).unsqueeze(1)

        def move(weights: Tensor, gradient: Tensor) -> Tensor:
            return (weights + self.step_size * gradient.sign()).clamp(-1, 1) * carries

        return Scene(start, render, move)


def _kernels(n: int, x: Tensor, generator: torch.Generator) -> Tensor:
    """One random kernel for each image, (n, 1, 23, 23)."""
    draw = uniform((n, 4), x, generator)
    sides = (draw[:, 0] * 10).long() + 1
    width = (0.1 + 0.3 * draw[:, 1]).view(n, 1, 1)
    frequency = (3.0 + (_KERNEL / 4 - 3.0) * draw[:, 2]).view(n, 1, 1)
    angle = math.pi * draw[:, 3]
    line = torch.linspace(-0.5, 0.5, _KERNEL, dtype=x.dtype, device=x.device)
    column, row = line.view(1, 1, -1), line.view(1, -1, 1)
    waves = torch.zeros(n, _KERNEL, _KERNEL, dtype=x.dtype, device=x.device)
    for side in range(10):
        theta = (angle + math.pi * side / sides).view(n, 1, 1)
        along = column * theta.cos() + row * theta.sin()
        used = (side < sides).view(n, 1, 1)
        waves = waves + used * torch.cos(2 * math.pi * frequency * along)
    envelope = torch.exp(-0.5 * (column**2 + row**2) / (width + 1e-3) ** 2)
    return (envelope * waves).unsqueeze(1)


def _equalised(noise: Tensor) -> Tensor:
    """Noise (N, H, W) with its contrast compressed, then scaled to [0, 1].

    u -> u / (c + |u| / max|u|): far values shrink towards near ones. The statistics are constants
    for the gradient.
    """
    middle = noise.mean((1, 2), keepdim=True).detach()
    centred = noise - middle
    size = centred.abs().detach()
    peak = size.amax((1, 2), keepdim=True).clamp(min=torch.finfo(noise.dtype).tiny)
    flat = centred * (1 + _CONTRAST_FLOOR) / (_CONTRAST_FLOOR + size / peak)
    low = flat.detach().amin((1, 2), keepdim=True)
    high = flat.detach().amax((1, 2), keepdim=True)
    return (flat - low) / (high - low).clamp(min=torch.finfo(noise.dtype).tiny)
