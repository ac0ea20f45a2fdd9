"""Small networks without batch norm for verified bounds, `cnn-small` and `cnn-large`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import initialise

# Side of the maps that the linear layers read; images of 32 x 32 come to it by two strides.
_SIDE = 8


class SmallCNN(nn.Module):
    """Two convolutions 4 x 4 of stride 2 and two linear layers, a ReLU after each but the last.

    Images of another size than 32 x 32 are pooled to 8 x 8 maps before the linear layers.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the images.
        width: channels of the first convolution, at least 1; the second has 2 times as many, the
            hidden linear layer 100 at 16, in proportion.

    Raises:
        ValueError: width out of range.

    References:
        Wong and Kolter, "Provable defenses against adversarial examples via the convex outer
        adversarial polytope", 2018; Sehwag et al., "Towards compact and robust deep neural
        networks", 2019.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 16) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"cnn-small-wW: W must be at least 1, got {width}")
        hidden = -(-100 * width // 16)
        self.conv1 = nn.Conv2d(in_channels, width, 4, stride=2, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, 2 * width, 4, stride=2, padding=1)
        self.relu2 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(_SIDE)
        self.fc1 = nn.Linear(2 * width * _SIDE**2, hidden)
        self.relu3 = nn.ReLU()
        self.fc = nn.Linear(hidden, num_classes)
        initialise(self, (self.fc1,))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, num_classes)."""
        x = self.avgpool(self.relu2(self.conv2(self.relu1(self.conv1(x)))))
        logits: Tensor = self.fc(self.relu3(self.fc1(torch.flatten(x, 1))))
        return logits


class LargeCNN(nn.Module):
    """Four convolutions, 3 x 3 and 4 x 4 of stride 2 in turn, and three linear layers, a ReLU after
    each but the last.

    Images of another size than 32 x 32 are pooled to 8 x 8 maps before the linear layers.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the images.
        width: channels of the first two convolutions, at least 1; the others have 2 times as many,
            the hidden linear layers 16 times.

    Raises:
        ValueError: width out of range.

    References:
        As of ``SmallCNN``.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 32) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"cnn-large-wW: W must be at least 1, got {width}")
        hidden = 16 * width
        self.conv1 = nn.Conv2d(in_channels, width, 3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(width, width, 4, stride=2, padding=1)
        self.relu2 = nn.ReLU()
        self.conv3 = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.relu3 = nn.ReLU()
        self.conv4 = nn.Conv2d(2 * width, 2 * width, 4, stride=2, padding=1)
        self.relu4 = nn.ReLU()
        self.avgpool = nn.AdaptiveAvgPool2d(_SIDE)
        self.fc1 = nn.Linear(2 * width * _SIDE**2, hidden)
        self.relu5 = nn.ReLU()
        self.fc2 = nn.Linear(hidden, hidden)
        self.relu6 = nn.ReLU()
        self.fc = nn.Linear(hidden, num_classes)
        initialise(self, (self.fc1, self.fc2))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, num_classes)."""
        x = self.relu2(self.conv2(self.relu1(self.conv1(x))))
        x = self.avgpool(self.relu4(self.conv4(self.relu3(self.conv3(x)))))
        x = self.relu6(self.fc2(self.relu5(self.fc1(torch.flatten(x, 1)))))
        logits: Tensor = self.fc(x)
        return logits
