"""Adversarial training at the cost of one attack step, and its two cures against collapse."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.checks import check_number
from repsim_fast.attacks import FGSM, NFGSM, RSFGSM
from repsim_fast.training.regularisers import gradient_misalignment

from .base import Method, TrainingBatch, cross_entropy, noted, on_examples


@noted
def fgsm(eps: float = 8 / 255, **options: Any) -> Method:
    """FGSM from x (Goodfellow et al., 2015); collapses at larger radii.

    Args:
        eps: Radius in image units.
        options: Further settings of ``attacks.PGD``; ``model_mode="train"`` attacks with batch
            statistics, as the catastrophic-overfitting papers do, and beside it
            ``update_statistics=True`` has running averages see the attack's passes, too.
    """
    perturb = on_examples(FGSM, eps, **options)
    return Method("fgsm", perturb, cross_entropy, eps, soft_labels=True, any_layout=True)


@noted
def rs_fgsm(eps: float = 8 / 255, *, relative_step: float = 1.25, **options: Any) -> Method:
    """FGSM from a random start (Wong et al., 2020).

    Args:
        eps: Radius in image units.
        relative_step: Step in units of eps.
        options: As for ``fgsm``.
    """
    perturb = on_examples(RSFGSM, eps, relative_step=relative_step, **options)
    return Method("rs-fgsm", perturb, cross_entropy, eps, soft_labels=True, any_layout=True)


@noted
def n_fgsm(eps: float = 8 / 255, *, noise: float = 2.0, **options: Any) -> Method:
    """FGSM on noisy images, not clipped to the radius (de Jorge et al., 2022).

    Args:
        eps: Step in image units.
        noise: Radius of the uniform noise in units of eps.
        options: As for ``fgsm``.
    """
    perturb = on_examples(NFGSM, eps, noise=noise, **options)
    return Method("n-fgsm", perturb, cross_entropy, eps, soft_labels=True, any_layout=True)


@noted
def gradalign(eps: float = 8 / 255, *, weight: float | None = None, **options: Any) -> Method:
    """FGSM with aligned input gradients (Andriushchenko & Flammarion, 2020).

    CE(f(x + d_FGSM)) + weight (1 - mean cos(grad l(x), grad l(x + u))), u uniform in the Linf ball;
    the gradient flows through the second of the two only. A batch costs a double backward pass.

    Args:
        eps: Radius in image units.
        weight: Default exp(255 eps ln(10) / 8 + ln 0.02), the paper's for CIFAR-10: 0.2 at 8/255.
        options: As for ``fgsm``, without ``norm``: it is of the Linf ball, and so is the weight.

    Raises:
        ValueError: Another norm, or a weight below 0.
    """
    if (norm := options.get("norm", "linf")) != "linf":
        raise ValueError(f"norm: method 'gradalign' has linf only, got {norm!r}")
    weight = 0.02 * math.exp(255 * eps * math.log(10) / 8) if weight is None else weight
    check_number("weight", weight)
    plain = fgsm(eps, **options)

    def loss(model: nn.Module, batch: TrainingBatch, perturbed: Tensor) -> tuple[Tensor, Tensor]:
        value, logits = cross_entropy(model, batch, perturbed)
        noise = torch.rand(batch.x.shape, generator=batch.generator).to(batch.x)
        nearby = batch.x + eps * (2 * noise - 1)
        return value + weight * gradient_misalignment(model, batch.x, batch.y, nearby), logits

    return Method("gradalign", plain.perturb, loss, eps, soft_labels=True, any_layout=True)
