"""Small networks with the traits that make capturing hard."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def seeded(build, seed: int = 0):  # type: ignore[no-untyped-def]
    """Build a module from a seed, leaving the global random state as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


class InPlace(nn.Module):
    """conv, batch norm and an in-place ReLU that is called twice."""

    def __init__(self, width: int = 4, classes: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        return self.fc(self.pool(out).flatten(1))


class Reversed(nn.Module):
    """Declares its layers in another order than it runs them."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(3, 2)
        self.first = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.first(x))


class Outputs(nn.Module):
    """Layers that return tuples, mappings, integers and nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.lstm = nn.LSTM(4, 6, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2, batch_first=False)
        self.mapping = MappingLayer()
        self.argmax = ArgmaxLayer()

    def forward(self, x: Tensor) -> Tensor:  # (N, T, 4)
        x = self.linear(x)
        self.lstm(x)
        t = x.transpose(0, 1)
        self.attention(t, t, t)
        self.argmax(x)
        return self.mapping(x)["hidden"]


class MappingLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 5)

    def forward(self, x: Tensor) -> dict[str, object]:
        index = torch.zeros(1, dtype=torch.long)
        return {"name": "a mapping", "index": index, "hidden": self.inner(x)}


class ArgmaxLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x.argmax(-1)
