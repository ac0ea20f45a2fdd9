"""Losses of attacks, above all the cross-entropy that does not saturate."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import PGD, losses


def test_cross_entropy_is_softplus_of_ours() -> None:
    logits = torch.randn(50, 7, dtype=torch.float64) * 5
    y = torch.randint(7, (50,))
    ours = losses.cross_entropy(logits, y)
    assert torch.allclose(
        nn.functional.softplus(ours), nn.functional.cross_entropy(logits, y, reduction="none")
    )


@pytest.mark.parametrize("shift", [0.0, 1e4])
def test_a_constant_added_to_the_logits_changes_nothing(shift: float) -> None:
    logits = torch.randn(50, 7, dtype=torch.float64)
    y = torch.randint(7, (50,))
    assert torch.allclose(
        losses.cross_entropy(logits + shift, y), losses.cross_entropy(logits, y), atol=1e-10
    )


@pytest.mark.parametrize("scale", [1.0, 1e2, 1e3, 1e4])
def test_confident_models_keep_their_gradient(scale: float) -> None:
    logits = (torch.randn(200, 10) * scale).requires_grad_()
    y = logits.argmax(1)
    (gradient,) = torch.autograd.grad(losses.cross_entropy(logits, y).sum(), logits)
    assert (gradient.abs().amax(1) > 0).all()


def test_a_confident_model_is_not_mistaken_for_a_robust_one(
    model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    """Logits times 10^4 change no prediction; with plain cross-entropy PGD would barely move."""
    model.eval()
    y = model(images).argmax(1)

    def confident(x: Tensor) -> Tensor:
        return model(x) * 1e4

    def plain(logits: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits, y, reduction="none")

    def robust(loss: str | losses.Loss, net: nn.Module) -> int:
        adv = PGD(0.02, steps=5, loss=loss, random_start=False)(net, images, y)
        return int((model(adv).argmax(1) == y).sum())

    assert robust("ce", confident) == robust("ce", model) < robust(plain, confident)
