"""Losses that attacks ascend: functions (logits, y) -> (N,), larger is worse for the model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """Cross-entropy without saturation, L = logsumexp_{j != y} z_j - z_y.

    CE = softplus(L), so L orders images as cross-entropy does, and grad CE = (1 - p_y) grad L: the
    same direction for every sample, without the factor that is exactly zero in floating point once
    the model is confident. Attacks that use the gradient's sign or direction take the same steps.

    Args:
        logits: (N, n_classes), any float dtype.
        y: Labels (N,), int64.
    """
    index = y.unsqueeze(1)
    others = logits.scatter(1, index, -torch.inf)
    return others.logsumexp(1) - logits.gather(1, index).squeeze(1)


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Margin, max_{j != y} z_j - z_y: positive exactly where the model is wrong."""
    index = y.unsqueeze(1)
    others = logits.scatter(1, index, -torch.inf)
    return others.amax(1) - logits.gather(1, index).squeeze(1)


_LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin}


def get(loss: str | Loss) -> Loss:
    """Loss by name, or ``loss`` itself when it is callable."""
    if callable(loss):
        return loss
    if loss not in _LOSSES:
        raise ValueError(f"loss must be a callable or one of {sorted(_LOSSES)}, got {loss!r}")
    return _LOSSES[loss]
