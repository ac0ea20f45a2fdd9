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


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Difference of logits ratio (Croce & Hein, 2020), free of shift and scale of the logits.

    -(z_y - max_{j != y} z_j) / (z_(1) - z_(3)), with z_(k) the k-th largest logit.

    Raises:
        ValueError: Fewer than 3 classes.
    """
    if logits.shape[1] < 3:
        raise ValueError(f"loss 'dlr' needs at least 3 classes, got {logits.shape[1]}")
    top = logits.topk(3).values
    return margin(logits, y) / (top[:, 0] - top[:, 2]).clamp(min=_TINY)


def dlr_towards(logits: Tensor, aim: Tensor) -> Tensor:
    """Targeted difference of logits ratio, -(z_y - z_t) / (z_(1) - (z_(3) + z_(4)) / 2).

    Args:
        logits: (N, n_classes).
        aim: Labels to leave and targets to reach, (N, 2).

    Raises:
        ValueError: Fewer than 4 classes.
    """
    if logits.shape[1] < 4:
        raise ValueError(f"the targeted DLR loss needs at least 4 classes, got {logits.shape[1]}")
    top = logits.topk(4).values
    label, target = logits.gather(1, aim).unbind(1)
    return (target - label) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2).clamp(min=_TINY)


def cross_entropy_towards(logits: Tensor, aim: Tensor) -> Tensor:
    """Minus the cross-entropy of the targets ``aim[:, 1]``, without saturation."""
    return -cross_entropy(logits, aim[:, 1])


def divergence(reference: Tensor) -> Loss:
    """KL(softmax(reference) || softmax(logits)), the inner loss of TRADES; labels are not used.

    Args:
        reference: Logits (N, n_classes) of the clean images: computed once, not each step.
    """
    aim = reference.log_softmax(1)

    def loss(logits: Tensor, y: Tensor) -> Tensor:
        return divergence_of(aim, logits.log_softmax(1))

    return loss


def divergence_of(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p || q), (N,), of logarithms of probabilities (N, n_classes).

    In logarithms, because the gradient to a probability that underflowed to 0 is not finite.
    """
    terms = torch.nn.functional.kl_div(log_q, log_p, reduction="none", log_target=True)
    return terms.sum(1)


# Keeps equal logits from dividing by zero; far below any difference of real logits.
_TINY = 1e-12

_LOSSES: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}


def get(loss: str | Loss) -> Loss:
    """Loss by name, or ``loss`` itself when it is callable."""
    if callable(loss):
        return loss
    if loss not in _LOSSES:
        raise ValueError(f"loss must be a callable or one of {sorted(_LOSSES)}, got {loss!r}")
    return _LOSSES[loss]
