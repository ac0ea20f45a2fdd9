"""Wide residual networks, `wrn-D-K`."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from .blocks import conv3x3, initialise, preact_stage


class WideResNet(nn.Module):
    """Wide residual network: three stages of (depth - 4) / 6 blocks, 16, 32 and 64 x width wide.

    Args:
        depth: number of layers D, with D - 4 a positive multiple of 6.
        width: widening factor K, at least 1.
        num_classes: number of outputs.
        in_channels: channels of the images.

    Raises:
        ValueError: depth or width out of range.

    References:
        Zagoruyko and Komodakis, "Wide residual networks", 2016, without dropout;
        the networks of Cianfarani et al., "Understanding robust learning through the lens of
        representation similarities", 2022.
    """

    def __init__(self, depth: int, width: int, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        if depth < 10 or (depth - 4) % 6:
            raise ValueError(f"wrn-D-K: D must be 10, 16, 22, 28, ... (6n + 4), got {depth}")
        if width < 1:
            raise ValueError(f"wrn-D-K: K must be at least 1, got {width}")
        blocks = (depth - 4) // 6
        widths = [16 * width, 32 * width, 64 * width]
        self.conv1 = conv3x3(in_channels, 16)
        self.stage1 = preact_stage(16, widths[0], blocks, 1, activated_shortcut=True)
        self.stage2 = preact_stage(widths[0], widths[1], blocks, 2, activated_shortcut=True)
        self.stage3 = preact_stage(widths[1], widths[2], blocks, 2, activated_shortcut=True)
        self.bn = nn.BatchNorm2d(widths[2])
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(widths[2], num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, num_classes)."""
        x = self.stage3(self.stage2(self.stage1(self.conv1(x))))
        x = self.avgpool(self.relu(self.bn(x)))
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits


def from_published(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights under the names that the network of TRADES gives them, under those it has here.

    Most files of RobustBench's wide residual networks have these names. ``sub_block1``, which that
    network holds and never runs, is left out.
    """
    if not any("block1.layer.0." in name for name in state):
        return dict(state)
    return {_renamed(name): value for name, value in state.items() if "sub_block1." not in name}


def _renamed(name: str) -> str:
    if ".layer." not in name:
        return re.sub(r"(^|\.)bn1\.(?=\w+$)", r"\1bn.", name)
    return re.sub(r"block(\d)\.layer\.", r"stage\1.", name).replace("convShortcut", "shortcut")
