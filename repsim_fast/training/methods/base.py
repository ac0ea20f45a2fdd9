"""What a training method is: how it perturbs a batch, and the loss it then minimises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

Perturb = Callable[[nn.Module, Tensor, Tensor, torch.Generator], Tensor]
"""(model, x, y, generator) -> images to train on; the generator lives on the CPU."""

BatchLoss = Callable[[nn.Module, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""(model, x, y, x_perturbed) -> (mean loss, logits that the running accuracy counts)."""


@dataclass(frozen=True)
class Method:
    """A training method: an inner step that makes the inputs, an outer loss on them.

    The two are apart so that options such as weight perturbation can act between them.
    """

    name: str
    perturb: Perturb
    loss: BatchLoss


def clean(model: nn.Module, x: Tensor, y: Tensor, generator: torch.Generator) -> Tensor:
    """Perturb nothing."""
    return x


def cross_entropy(
    model: nn.Module, x: Tensor, y: Tensor, x_perturbed: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the perturbed images."""
    logits = model(x_perturbed)
    return nn.functional.cross_entropy(logits, y), logits
