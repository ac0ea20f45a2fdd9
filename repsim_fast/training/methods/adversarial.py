"""Standard training, and training on the examples of any attack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast.attacks import PGD

from .base import Method, clean, cross_entropy


def standard() -> Method:
    """Cross-entropy of clean images."""
    return Method("standard", clean, cross_entropy)


def pgd(
    eps: float = 8 / 255, *, steps: int = 10, step_size: float | None = None, **options: Any
) -> Method:
    """Adversarial training on PGD examples (Madry et al., 2018): min E max CE(f(x + d), y).

    Args:
        eps: Radius in image units.
        steps: Attack steps.
        step_size: Default eps / 4, the usual 2/255 at 8/255.
        options: Further settings of ``attacks.PGD``.
    """
    step_size = eps / 4 if step_size is None else step_size

    def perturb(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
        attack = PGD(eps, steps=steps, step_size=step_size, seed=generator, **options)
        return attack(model, x, y)

    return Method("pgd", perturb, cross_entropy)
