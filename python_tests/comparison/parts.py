"""A model whose layers hand on parts of the inputs, so that their features are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Parts(nn.Module):
    """Layers that hand on parts of the inputs."""

    def __init__(self, *parts: slice) -> None:
        super().__init__()
        self.parts = parts
        self.layers = nn.ModuleList(nn.Hardtanh(-1e9, 1e9) for _ in parts)

    def forward(self, x: Tensor) -> Tensor:
        return [layer(x[:, part]) for layer, part in zip(self.layers, self.parts, strict=True)][-1]


TWO = Parts(slice(0, 5), slice(3, 9))


def samples(n: int) -> Tensor:
    """Features (n, 9) that have two directions in common."""
    return torch.randn(n, 2) @ torch.randn(2, 9) + torch.randn(n, 9)


def features(x: Tensor) -> list[Tensor]:
    return [x[:, :5], x[:, 3:]]
