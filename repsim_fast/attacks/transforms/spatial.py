"""Worst rotation and translation."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from repsim_fast._core.batch_checks import check_labels, check_logits, images_device
from repsim_fast._core.borrow import Model, borrow
from repsim_fast._core.randomness import Stream

from .. import losses
from ..best_adversarial import BestAdversarial
from ..losses import Loss
from ..objective import InputGradient
from .rendering import check_images, uniform


class RotationTranslation:
    """Worst of several rotations and shifts (Engstrom et al., 2019), black border.

    A callable (model, x, y) -> x_adv; of the candidates each sample keeps one that fools the model,
    and among equals the one of the largest loss.

    Args:
        max_rotation: Degrees either way; published 30.
        max_translation: Pixels either way, in each direction; published 5.
        n_random: Candidates drawn at random; published 10, for training.
        grid: Instead, k values of each of angle, row and column shift, k^3 candidates; published
            5, for evaluation.
        loss: As in ``PGD``.
        seed: Int or ``torch.Generator``; the stream advances with every call.
    """

    def __init__(
        self,
        *,
        max_rotation: float = 30.0,
        max_translation: float = 5.0,
        n_random: int = 10,
        grid: int | None = None,
        loss: str | Loss = "ce",
        seed: int | torch.Generator | None = None,
    ) -> None:
        if not max_rotation >= 0 or not max_translation >= 0:
            raise ValueError(
                "max_rotation and max_translation must be non-negative, "
                f"got {max_rotation} and {max_translation}"
            )
        if n_random < 1 or (grid is not None and grid < 1):
            raise ValueError(f"n_random and grid must be at least 1, got {n_random} and {grid}")
        self.max_rotation = max_rotation
        self.max_translation = max_translation
        self.n_random = n_random
        self.grid = grid
        self.loss = losses.get(loss)
        self._stream = Stream(seed)

    @torch.no_grad()
    def __repr__(self) -> str:
        return (
            f"RotationTranslation(max_rotation={self.max_rotation}, "
            f"max_translation={self.max_translation})"
        )

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` (N, 1 or 3, H, W) with labels ``y`` (N,)."""
        with (
            borrow(model, mode="eval", device=images_device(x), seed=self._stream.seed()),
            torch.no_grad(),
        ):
            images = check_images(x)
            y = check_labels(y, x)
            objective = InputGradient(model, self.loss)
            found = BestAdversarial(images, targeted=False)
            rows = torch.arange(len(y), device=y.device)
            for number, choice in enumerate(self._choices(images)):
                candidate = self._warp(images, choice)
                logits = objective.logits(candidate)
                if number == 0:
                    check_logits(logits, y)
                found.offer(rows, candidate, logits, y, objective.value(logits, y))
            return found.images

    def _choices(self, x: Tensor) -> Tensor:
        """Candidates (K, N, 3) in [-1, 1]: angle, row and column shift in units of the largest."""
        n = len(x)
        if self.grid is None:
            draw = uniform((self.n_random, n, 3), x, self._stream.on(x.device))
            return 2.0 * draw - 1.0
        line = torch.linspace(-1, 1, self.grid) if self.grid > 1 else torch.zeros(1)
        return torch.cartesian_prod(line, line, line).to(x).unsqueeze(1).expand(-1, n, -1)

    def _warp(self, x: Tensor, choice: Tensor) -> Tensor:
        height, width = x.shape[2:]
        angle = choice[:, 0] * math.radians(self.max_rotation)
        down = choice[:, 1] * self.max_translation * 2 / height  # grids span [-1, 1]
        right = choice[:, 2] * self.max_translation * 2 / width
        cos, sin = angle.cos(), angle.sin()
        ratio = height / width
        # Where each output pixel is read from; sin scaled so that pixels, not sides, turn.
        theta = torch.stack(
            (
                torch.stack((cos, -sin * ratio, -right), 1),
                torch.stack((sin / ratio, cos, -down), 1),
            ),
            1,
        )
        grid = affine_grid(theta, list(x.shape), align_corners=False)
        return grid_sample(x, grid, align_corners=False).clamp(0.0, 1.0)
