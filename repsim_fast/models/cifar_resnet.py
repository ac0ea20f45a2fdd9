"""The original residual networks for CIFAR, `resnet-D`."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .blocks import conv3x3, initialise


class PadShortcut(nn.Module):
    """Shortcut without parameters ("option A"): every stride-th pixel, new channels zero."""

    def __init__(self, new_channels: int, stride: int) -> None:
        super().__init__()
        self.new_channels = new_channels
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to (N, C + new_channels, H / stride, W / stride)."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.new_channels))


class BasicBlock(nn.Module):
    """Block: conv1 - bn1 - relu1 - conv2 - bn2, plus the shortcut, then relu2."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, out_channels, stride)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.relu1 = nn.ReLU()
        self.conv2 = conv3x3(out_channels, out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.relu2 = nn.ReLU()
        self.shortcut: PadShortcut | None = None
        if stride != 1 or in_channels != out_channels:
            self.shortcut = PadShortcut(out_channels - in_channels, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, in_channels, H, W) to (N, out_channels, H / stride, W / stride)."""
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        residual: Tensor = self.relu2(out + (x if self.shortcut is None else self.shortcut(x)))
        return residual


class CifarResNet(nn.Module):
    """Residual network: three stages of (depth - 2) / 6 blocks, 16, 32 and 64 channels wide.

    Args:
        depth: number of layers D, with D - 2 a positive multiple of 6.
        num_classes: number of outputs.
        in_channels: channels of the images.

    Raises:
        ValueError: depth out of range.

    References:
        He et al., "Deep residual learning for image recognition", section 4.2, 2016, with
        shortcuts of option A as there; ResNet-20 of Leavitt and Morcos, "Selectivity considered
        harmful", 2020.
    """

    def __init__(self, depth: int, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise ValueError(
                f"resnet-D: D must be 8, 14, 20, 26, ... (6n + 2), got {depth}; "
                "the networks for ImageNet are torchvision:resnet18 and so on"
            )
        blocks = (depth - 2) // 6
        self.conv1 = conv3x3(in_channels, 16)
        self.bn1 = nn.BatchNorm2d(16)
        self.relu = nn.ReLU()
        self.stage1 = _stage(16, 16, blocks, stride=1)
        self.stage2 = _stage(16, 32, blocks, stride=2)
        self.stage3 = _stage(32, 64, blocks, stride=2)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, num_classes)."""
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.avgpool(self.stage3(self.stage2(self.stage1(x))))
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


def _stage(in_channels: int, out_channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(in_channels, out_channels, stride)
    rest = (BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1))
    return nn.Sequential(first, *rest)
