"""Pre-activation residual network of 18 layers for small images, `preactresnet-18`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import conv3x3, initialise, preact_stage


class PreActResNet18(nn.Module):
    """Four stages of two blocks, 1, 2, 4 and 8 times ``width`` wide, no pooling at the entrance.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the images.
        width: channels of the first stage, at least 1.

    Raises:
        ValueError: width out of range.

    References:
        He et al., "Identity mappings in deep residual networks", 2016, in the form for CIFAR of
        Wong et al., "Fast is better than free", 2020, and Ortiz-Jimenez et al., "Catastrophic
        overfitting can be induced with discriminative non-robust features", 2022.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"preactresnet-18-wW: W must be at least 1, got {width}")
        w1, w2, w3, w4 = (width * 2**stage for stage in range(4))
        self.conv1 = conv3x3(in_channels, w1)
        self.stage1 = preact_stage(w1, w1, 2, 1, activated_shortcut=False)
        self.stage2 = preact_stage(w1, w2, 2, 2, activated_shortcut=False)
        self.stage3 = preact_stage(w2, w3, 2, 2, activated_shortcut=False)
        self.stage4 = preact_stage(w3, w4, 2, 2, activated_shortcut=False)
        self.bn = nn.BatchNorm2d(w4)
        self.relu = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(w4, num_classes)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, num_classes)."""
        x = self.stage4(self.stage3(self.stage2(self.stage1(self.conv1(x)))))
        x = self.avgpool(self.relu(self.bn(x)))
        logits: Tensor = self.fc(torch.flatten(x, 1))
        return logits
