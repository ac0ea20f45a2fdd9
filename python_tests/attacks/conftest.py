"""Small models and images on which attacks are checked."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn


@pytest.fixture
def model() -> nn.Module:
    """Conv net with BatchNorm and dropout, in training mode but for one frozen BatchNorm."""
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(8 * 8 * 8, 5),
    )
    with torch.no_grad():
        for layer in net:
            if isinstance(layer, nn.Conv2d | nn.Linear):
                # Steep enough that a few steps of 2/255 change predictions.
                shape = layer.weight.shape
                fan_in = layer.weight[0].numel()
                layer.weight.copy_(torch.randn(shape, generator=generator) * 3 / fan_in**0.5)
                layer.bias.zero_()
    net.train()
    net[4].eval()
    return net


@pytest.fixture
def images() -> Tensor:
    return torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(12) % 5
