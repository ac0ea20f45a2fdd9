"""Robust training as it is usually written out, for benchmarks to be checked and timed against."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, kl_div

EPS, SIZE, STEPS, BETA = 8 / 255, 2 / 255, 10, 6.0
LR, MOMENTUM, WEIGHT_DECAY = 0.1, 0.9, 5e-4

Loss = Callable[[nn.Module, Tensor, Tensor], Tensor]
"""(model, images, labels) -> loss of one batch, attack included."""


def _projected(adv: Tensor, x: Tensor) -> Tensor:
    return torch.min(torch.max(adv, x - EPS), x + EPS).clamp(0, 1)


def pgd_loss(model: nn.Module, x: Tensor, y: Tensor, *, random_start: bool = True) -> Tensor:
    """Madry et al., 2018: PGD-10 in eval mode, then cross-entropy in training mode."""
    model.eval()
    adv = x.clone()
    if random_start:
        adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        adv.requires_grad_()
        (gradient,) = torch.autograd.grad(cross_entropy(model(adv), y), adv)
        adv = _projected(adv.detach() + SIZE * gradient.sign(), x)
    model.train()
    return cross_entropy(model(adv), y)


def pgd_loss_backward(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The same as many write it, with ``loss.backward()``, which also computes every weight's
    gradient in each step."""
    model.eval()
    adv = (x + torch.empty_like(x).uniform_(-EPS, EPS)).clamp(0, 1)
    for _ in range(STEPS):
        adv.requires_grad_()
        cross_entropy(model(adv), y).backward()
        adv = _projected(adv.detach() + SIZE * adv.grad.sign(), x)
    model.zero_grad()
    model.train()
    return cross_entropy(model(adv), y)


def trades_loss(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Zhang et al., 2019, in the form of their code."""
    model.eval()
    adv = x + 0.001 * torch.randn_like(x)
    for _ in range(STEPS):
        adv.requires_grad_()
        gap = kl_div(model(adv).log_softmax(1), model(x).softmax(1), reduction="sum")
        (gradient,) = torch.autograd.grad(gap, adv)
        adv = _projected(adv.detach() + SIZE * gradient.sign(), x)
    model.train()
    logits = model(x)
    gap = kl_div(model(adv).log_softmax(1), logits.softmax(1), reduction="batchmean")
    return cross_entropy(logits, y) + BETA * gap


def n_fgsm_loss(
    model: nn.Module, x: Tensor, y: Tensor, *, noise: float = 2.0, training: bool = True
) -> Tensor:
    """de Jorge et al., 2022: one step from noisy images, in training mode as in their code."""
    model.train(training)
    start = (x + torch.empty_like(x).uniform_(-noise * EPS, noise * EPS)).requires_grad_()
    (gradient,) = torch.autograd.grad(cross_entropy(model(start), y), start)
    adv = (start.detach() + EPS * gradient.sign()).clamp(0, 1)
    model.train()
    return cross_entropy(model(adv), y)


def train(model: nn.Module, batches: Iterable[tuple[Tensor, Tensor]], loss: Loss) -> float:
    """One epoch at a constant rate; the mean loss."""
    optimizer = torch.optim.SGD(
        model.parameters(), lr=LR, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
    )
    model.train()
    total, n = 0.0, 0
    for x, y in batches:
        value = loss(model, x, y)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        total, n = total + value.item() * len(y), n + len(y)
    return total / n
