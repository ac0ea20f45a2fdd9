"""Attacks on networks that draw random numbers: steps go by the mean over several draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import APGD, PGD, AutoAttack, losses
from repsim_fast.attacks.objective import InputGradient


class Noisy(nn.Module):
    """Logits of a linear model under much noise; counts its forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 12, generator=torch.Generator().manual_seed(0)))
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x.flatten(1) @ (self.weight + 3 * torch.randn_like(self.weight)).T


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    x = torch.rand(64, 3, 2, 2, generator=torch.Generator().manual_seed(1))
    return x, (x.flatten(1) @ Noisy().weight.T).argmax(1)


def test_the_gradient_is_the_mean_over_draws(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch
    model = Noisy()
    torch.manual_seed(0)
    logits, value, gradient = InputGradient(model, losses.margin, draws=3)(x, y)
    torch.manual_seed(0)
    single = [InputGradient(model, losses.margin)(x, y) for _ in range(3)]
    assert torch.allclose(gradient, sum(one[2] for one in single) / 3, atol=1e-6)
    assert torch.allclose(logits, sum(one[0] for one in single) / 3, atol=1e-6)
    assert torch.equal(value, losses.margin(logits, y))


@pytest.mark.parametrize("attack", [PGD, APGD])
def test_draws_make_the_attack_stronger(
    batch: tuple[Tensor, Tensor], attack: type[PGD] | type[APGD]
) -> None:
    x, y = batch
    right = {}
    for draws in (1, 40):
        adv = attack(0.05, steps=5, draws=draws, seed=0)(Noisy(), x, y)
        right[draws] = losses.margin(adv.flatten(1) @ Noisy().weight.T, y).mean()
    assert right[40] > right[1]


def test_autoattack_for_randomised_networks(batch: tuple[Tensor, Tensor]) -> None:
    attack = AutoAttack(0.001, steps=3, draws=4, seed=0)
    assert attack.stages == ("apgd-ce", "apgd-dlr")
    model = Noisy()
    attack(model, *batch)
    assert model.calls % 4 == 0
    assert model.calls >= 4 * (1 + 2 * 4)
    for make in (PGD, APGD, AutoAttack):
        with pytest.raises(ValueError, match="draws must be at least 1, got 0"):
            make(0.1, draws=0)
