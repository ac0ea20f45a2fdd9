"""Standard training, training with noise, and on the examples of any attack."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.attacked import Attack, attacked
from repsim_fast._core.checks import check_number
from repsim_fast._core.memory_format import is_ours
from repsim_fast.attacks import PGD

from .base import Method, TrainingBatch, clean, cross_entropy, noted, on_examples


@noted
def standard() -> Method:
    """Cross-entropy of clean images."""
    return Method("standard", clean, cross_entropy, soft_labels=True, any_layout=True)


@noted
def pgd(
    eps: float = 8 / 255, *, steps: int = 10, step_size: float | None = None, **options: Any
) -> Method:
    """Adversarial training on PGD examples (Madry et al., 2018): min E max CE(f(x + d), y).

    Args:
        eps: Radius in image units.
        steps: Attack steps.
        step_size: Default eps / 4, the usual 2/255 at 8/255.
        options: Further settings of ``attacks.PGD``, such as ``norm``.
    """
    step_size = eps / 4 if step_size is None else step_size
    perturb = on_examples(PGD, eps, steps=steps, step_size=step_size, **options)
    return Method("pgd", perturb, cross_entropy, eps, soft_labels=True, any_layout=True)


@noted
def adversarial(attack: Attack, *, name: str = "adversarial", eps: float | None = None) -> Method:
    """Training on the examples of any attack (model, x, y) -> x_adv.

    An attack that draws from a stream of its own goes on in it where a resumed training would have
    to start again: use the named methods where bit-identical resumption matters.
    """

    def perturb(model: nn.Module, batch: TrainingBatch) -> Tensor:
        return attacked(f"the attack of method {name!r}", attack, model, batch.x, batch.y)

    return Method(name, perturb, cross_entropy, eps, soft_labels=True, any_layout=is_ours(attack))


@noted
def noise(sigma: float = 0.25) -> Method:
    """Training on Gaussian noise, for randomised smoothing (Cohen et al., 2019).

    Args:
        sigma: Standard deviation in image units; noisy images are not clipped.
    """
    check_number("sigma", sigma, positive=True)

    def perturb(model: nn.Module, batch: TrainingBatch) -> Tensor:
        return batch.x + sigma * torch.randn(batch.x.shape, generator=batch.generator).to(batch.x)

    return Method("noise", perturb, cross_entropy, soft_labels=True, any_layout=True)
