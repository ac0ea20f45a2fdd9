"""PGD as it is usually written out, for benchmarks to be checked and timed against."""

from __future__ import annotations

import torch
from torch import Tensor, nn

EPS, SIZE, STEPS = 8 / 255, 2 / 255, 10


def pgd(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """PGD-10 in the Linf ball of 8/255, from x."""
    adv = x.clone()
    for _ in range(STEPS):
        adv.requires_grad_()
        loss = nn.functional.cross_entropy(model(adv), y)
        (grad,) = torch.autograd.grad(loss, adv)
        adv = adv.detach() + SIZE * grad.sign()
        adv = (x + (adv - x).clamp(-EPS, EPS)).clamp(0, 1)
    return adv.detach()
