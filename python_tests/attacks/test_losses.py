"""Losses of attacks, above all the cross-entropy that does not saturate."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import APGD, FGSM, PGD, losses


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


def test_half_precision_logits_keep_their_gradient() -> None:
    """float16 cross-entropy has none for a third of the samples at this scale."""
    logits = (torch.randn(500, 10) * 30).half().requires_grad_()
    y = logits.argmax(1)
    (gradient,) = torch.autograd.grad(losses.cross_entropy(logits.float(), y).sum(), logits)
    assert (gradient.abs().amax(1) > 0).all()


def test_dlr_is_free_of_shift_and_scale() -> None:
    logits = torch.randn(50, 6, dtype=torch.float64)
    y = torch.randint(6, (50,))
    aim = torch.stack((y, (y + 1) % 6), 1)
    ordered = logits.sort(1, descending=True).values
    others = logits.scatter(1, y[:, None], -torch.inf).amax(1)
    label, target = logits.gather(1, aim).unbind(1)
    want = -(label - others) / (ordered[:, 0] - ordered[:, 2])
    assert torch.allclose(losses.dlr(logits, y), want)
    assert torch.allclose(losses.dlr(1e3 * logits + 7, y), want)
    want = -(label - target) / (ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2)
    assert torch.allclose(losses.dlr_towards(logits, aim), want)
    assert torch.allclose(losses.dlr_towards(1e3 * logits + 7, aim), want)


def test_equal_logits_give_finite_losses() -> None:
    logits, y = torch.zeros(3, 5), torch.tensor([0, 1, 2])
    for loss in (losses.cross_entropy, losses.margin, losses.dlr):
        assert loss(logits, y).isfinite().all()


def test_divergence() -> None:
    reference, logits = torch.randn(20, 5), torch.randn(20, 5)
    p, q = reference.softmax(1), logits.softmax(1)
    got = losses.divergence(reference)(logits, torch.zeros(20, dtype=torch.int64))
    assert torch.allclose(got, (p * (p / q).log()).sum(1), atol=1e-6)


def test_a_loss_must_give_one_value_for_each_image(
    model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    with pytest.raises(ValueError, match="loss must return one value for each image"):
        PGD(0.1, loss=nn.functional.cross_entropy)(model, images, labels)
    with pytest.raises(ValueError, match="loss must be a callable or one of"):
        PGD(0.1, loss="hinge")


class Rounded(nn.Module):
    """Sees images of few grey levels, whose gradient is 0."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer((x.flatten(1) * 7).round() / 7)


@pytest.mark.parametrize("attack", [FGSM(0.1), PGD(0.1, seed=0), APGD(0.1, steps=3, seed=0)])
def test_an_attack_without_a_direction_says_so(attack: Any, recwarn: Any) -> None:
    torch.manual_seed(0)
    model, x = Rounded(), torch.rand(8, 1, 4, 4)
    y = model(x).argmax(1)
    with pytest.warns(UserWarning, match="gradient of the loss is exactly 0 at each of 8 images"):
        attack(model, x, y)
    recwarn.clear()
    attack(nn.Sequential(nn.Flatten(), model.layer), x, y)
    assert not recwarn.list
