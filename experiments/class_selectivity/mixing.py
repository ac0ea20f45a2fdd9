"""Augmentation by mixed chains of operations, AugMix's without its consistency loss."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from repsim_fast.data.augmentation import Augment

WIDTH, DEPTH = 3, 3

Operation = Callable[[Tensor, Tensor], Tensor]
"""(images, strengths (N,) in [-1, 1]) -> images; none of them is a corruption of the test."""


def mixed_chains(usual: Augment) -> Augment:
    """``usual``, then a random mixture of an image with three chains of one to three operations.

    References:
        Hendrycks et al., "AugMix: a simple data processing method to improve robustness and
        uncertainty", 2020.
    """

    def augment(images: Tensor, generator: torch.Generator) -> Tensor:
        x = usual(images, generator)
        shape, where = (len(x), 1, 1, 1), x.device
        # Dirichlet(1, 1, 1) is exponentials over their sum; Beta(1, 1) is uniform.
        draw = -torch.rand(len(x), WIDTH, generator=generator, device=generator.device).log()
        weights = (draw / draw.sum(1, keepdim=True)).to(where)
        share = torch.rand(len(x), generator=generator, device=generator.device).to(where)
        mixture = torch.zeros_like(x)
        for chain in range(WIDTH):
            mixture += weights[:, chain].view(shape) * _chain(x, generator)
        return x + share.view(shape) * (mixture - x)

    return augment


def _chain(x: Tensor, generator: torch.Generator) -> Tensor:
    n, device = len(x), generator.device
    depth = torch.randint(1, DEPTH + 1, (n,), generator=generator, device=device)
    changed = x.clone()
    for step in range(DEPTH):
        chosen = torch.randint(0, len(OPERATIONS), (n,), generator=generator, device=device)
        strength = 2 * torch.rand(n, generator=generator, device=device) - 1
        for number, operation in enumerate(OPERATIONS):
            rows = ((chosen == number) & (depth > step)).nonzero()[:, 0].to(x.device)
            if len(rows):
                changed[rows] = operation(changed[rows], strength[rows.to(device)].to(x.device))
    return changed


def _moved(x: Tensor, matrices: Sequence[Sequence[Tensor]]) -> Tensor:
    """Images under affine maps, (N, 2, 3) given entry by entry."""
    theta = torch.stack([torch.stack(list(row), 1) for row in matrices], 1).to(x.dtype)
    grid = F.affine_grid(theta, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, align_corners=False)


def _rotated(x: Tensor, strength: Tensor) -> Tensor:
    angle, zero = 0.26 * strength, torch.zeros_like(strength)  # 15 degrees
    return _moved(x, [[angle.cos(), -angle.sin(), zero], [angle.sin(), angle.cos(), zero]])


def _sheared(x: Tensor, strength: Tensor) -> Tensor:
    one, zero = torch.ones_like(strength), torch.zeros_like(strength)
    return _moved(x, [[one, 0.3 * strength, zero], [zero, one, zero]])


def _shifted(x: Tensor, strength: Tensor) -> Tensor:
    one, zero = torch.ones_like(strength), torch.zeros_like(strength)
    return _moved(x, [[one, zero, 0.3 * strength], [zero, one, zero]])


def _posterised(x: Tensor, strength: Tensor) -> Tensor:
    levels = (2 + 6 * (1 - strength.abs())).view(-1, 1, 1, 1).round()
    return (x * levels).round() / levels


def _solarised(x: Tensor, strength: Tensor) -> Tensor:
    threshold = (1 - strength.abs()).view(-1, 1, 1, 1)
    return torch.where(x > threshold, 1 - x, x)


def _stretched(x: Tensor, strength: Tensor) -> Tensor:
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    return (x - low) / (high - low).clamp(min=1e-3)


OPERATIONS: tuple[Operation, ...] = (
    _rotated, _sheared, _shifted, _posterised, _solarised, _stretched,
)  # fmt: skip
