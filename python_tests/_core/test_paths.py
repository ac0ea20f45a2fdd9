"""Models that run other operations on many images than on two are known by it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from repsim_fast import models
from repsim_fast._core.paths import same_path

IMAGES = torch.rand(6, 3, 8, 8)


class Net(nn.Module):
    def __init__(self, head: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm, self.drop = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5)
        self.linear = nn.Linear(4, 3)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        x = self.drop(self.norm(self.conv(x)).relu())
        logits: Tensor = self.linear(self.head(self, x).mean((2, 3)))
        return logits


@pytest.mark.parametrize("autocast", [False, True])
def test_networks_without_branches(autocast: bool) -> None:
    built = models.build("resnet-8", num_classes=10, in_channels=3, seed=0)
    for model in (built, Net(lambda _, x: x)):
        before = {name: value.clone() for name, value in model.state_dict().items()}
        state = torch.get_rng_state()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            assert same_path(model, IMAGES)
        assert model.training
        assert torch.equal(torch.get_rng_state(), state)
        assert all(torch.equal(before[name], v) for name, v in model.state_dict().items())


@pytest.mark.parametrize(
    "head",
    [
        lambda _, x: x.tanh() if len(x) > 2 else x,
        lambda model, x: x + 1 if model.training and len(x) > 2 else x,
        lambda _, x: torch.stack([part * 2 for part in x]),
        lambda _, x: x.view(4, -1) if len(x) > 2 else x,  # fails
    ],
)
def test_branches_by_the_number_of_images(head: Callable[[nn.Module, Tensor], Tensor]) -> None:
    assert not same_path(Net(head), IMAGES)
    assert same_path(Net(head), IMAGES[:2])
