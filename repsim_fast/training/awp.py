"""Adversarial weight perturbation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from repsim_fast._core.buffers import buffers_kept


def moves(weight: nn.Parameter) -> bool:
    """Whether a weight is one that is perturbed."""
    return weight.requires_grad and weight.ndim > 1


@contextlib.contextmanager
def perturbed_weights(
    model: nn.Module, loss: Callable[[], Tensor], gamma: float, scaler: torch.amp.GradScaler
) -> Iterator[None]:
    """Worst weights nearby, within; the old ones, bit for bit, afterwards (Wu et al., 2020).

    Every weight matrix or kernel moves by gamma |w| g / |g|, with g the gradient of the loss;
    biases and normalisation stay. Buffers do not notice the additional forward pass.

    Args:
        model: The model in training.
        loss: Computes the batch's loss from the model as it is.
        gamma: Relative size of the perturbation; published 0.005 to 0.01.
        scaler: Of the loss. Weights whose scaled gradient overflows stay, as the scaler itself
            leaves out steps that do.
    """
    weights = [weight for weight in model.parameters() if moves(weight)]
    with buffers_kept([model]):
        gradients = torch.autograd.grad(scaler.scale(loss()), weights, allow_unused=True)
    with torch.no_grad():
        before = [weight.clone() for weight in weights]
        for weight, gradient in zip(weights, gradients, strict=True):
            # The largest entry first: scaled gradients may be too large to be squared.
            if gradient is None or not 0 < (largest := gradient.abs().max()) < torch.inf:
                continue
            direction = gradient / largest
            weight.add_(direction, alpha=float(gamma * weight.norm() / direction.norm()))
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, value in zip(weights, before, strict=True):
                weight.copy_(value)
