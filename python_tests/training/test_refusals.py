"""Settings that would be ignored are refused with their names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import PGD
from repsim_fast.training import Evaluation, Optimisation, train

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (
            partial(torch.optim.SGD, lr=0.5),
            r"bring lr=0.1, which the factory's own lr=0.5 .* train",
        ),
        (
            partial(torch.optim.AdamW, weight_decay=0.3),
            r"bring weight_decay=0.0005, .* own weight_decay=0.3 .* Optimisation",
        ),
    ],
)
def test_a_factory_s_own_rate_or_decay_would_be_lost(
    factory: Any, message: str, small_net: Build, few: Pair
) -> None:
    options: dict[str, Any] = {"epochs": 1, "lr": 0.1, "progress": False}
    with pytest.raises(ValueError, match=message):
        train(small_net(), few, optimisation=Optimisation(factory), **options)


@pytest.mark.parametrize(
    "factory",
    [
        torch.optim.Adam,
        torch.optim.AdamW,
        partial(torch.optim.SGD, lr=0.1),
        partial(torch.optim.SGD, weight_decay=5e-4, momentum=0.5),
        lambda groups: torch.optim.SGD([{**g, "lr": 0.02} for g in groups], lr=0.02),
    ],
)
def test_factories_that_agree_with_their_groups(factory: Any, small_net: Build, few: Pair) -> None:
    train(
        small_net(), few, epochs=1, lr=0.1, optimisation=Optimisation(factory), progress=False
    )  # fmt: skip


def test_an_attack_needs_images() -> None:
    with pytest.raises(ValueError, match="attack: needs images to attack, data or validation"):
        Evaluation(attack=PGD(0.1))
    assert Evaluation(attack=PGD(0.1), validation=0.1).sets() == {"": None}
