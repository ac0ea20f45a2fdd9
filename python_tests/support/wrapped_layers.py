"""Layers that are made of other layers: adapters, message passing, quantisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Adapted(nn.Module):
    """A projection with a low-rank adapter, under a name that says nothing."""

    def __init__(self, base: nn.Linear, rank: int = 2, scale: float = 3.0) -> None:
        super().__init__()
        self.base_layer = base
        self.down = nn.ModuleDict({"default": nn.Linear(base.in_features, rank, bias=False)})
        self.up = nn.ModuleDict({"default": nn.Linear(rank, base.out_features, bias=False)})
        self.dropout = nn.Dropout(0.1)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        change = self.up["default"](self.down["default"](self.dropout(x)))
        return self.base_layer(x) + self.scale * change


class AdaptedLinear(nn.Linear):
    """The same as a subclass of the projection."""

    def __init__(self, n_in: int, n_out: int, rank: int = 2) -> None:
        super().__init__(n_in, n_out)
        self.down, self.up = nn.Linear(n_in, rank), nn.Linear(rank, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + self.up(self.down(x))


class GCNConv(nn.Module):
    """Graph convolution (Kipf and Welling): messages are passed outside of the projection."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.lin = nn.Linear(n_in, n_out, bias=False)
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        degree = adjacency.sum(1).rsqrt()
        return degree[:, None] * adjacency * degree @ self.lin(x) + self.bias


class GCN(nn.Module):
    def __init__(self, n_in: int = 6, width: int = 8, classes: int = 3) -> None:
        super().__init__()
        self.conv1, self.conv2 = GCNConv(n_in, width), GCNConv(width, classes)

    def forward(self, x: Tensor, adjacency: Tensor) -> Tensor:
        return self.conv2(self.conv1(x, adjacency).relu(), adjacency)


class ConvNormAct(nn.Module):
    """A chain of layers, each of which counts, with a function after them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class ConvEncoder(nn.Module):
    """A network of equal layers with functions between them."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 3, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x).relu()
        return x


class Retention(nn.Module):
    """A layer of a type that nothing tells."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight
