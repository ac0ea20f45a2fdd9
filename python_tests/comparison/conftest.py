from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


def convnet(width: int, seed: int) -> nn.Sequential:
    """Layers in a row, batch norm with statistics far from 0 and 1, ReLU in place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(width, 2 * width, 3),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.LazyLinear(5),
        )
        model(torch.randn(8, 3, 8, 8))  # in train mode: the statistics move
    return model.eval()


@pytest.fixture
def net_a() -> nn.Sequential:
    return convnet(4, seed=1)


@pytest.fixture
def net_b() -> nn.Sequential:
    return convnet(6, seed=2)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(40, 3, 8, 8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(40) % 5
