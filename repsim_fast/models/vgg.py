"""VGG-16 with batch norm for small images, `vgg-16`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .blocks import conv3x3, initialise


class VGG16(nn.Module):
    """Thirteen convolutions in five stages, each with a batch norm and a ReLU, and three linear
    layers; the first four stages end in a max pooling.

    Images of 32 x 32 reach the linear layers as 2 x 2 maps; others are pooled to them.

    Args:
        num_classes: number of outputs.
        in_channels: channels of the images.
        width: channels of the first stage, at least 1; the others have 2, 4, 8 and 8 times as many,
            the linear layers 4 times.

    Raises:
        ValueError: width out of range.

    References:
        Simonyan and Zisserman, "Very deep convolutional networks for large-scale image
        recognition", 2015, in the form for CIFAR of Sehwag et al., "Towards compact and robust deep
        neural networks", 2019, and "HYDRA: pruning adversarially robust neural networks", 2020.
    """

    def __init__(self, num_classes: int, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"vgg-16-wW: W must be at least 1, got {width}")
        w1, w2, w3, w4 = (width * 2**stage for stage in range(4))
        self.stage1 = _stage(in_channels, w1, 2, pooled=True)
        self.stage2 = _stage(w1, w2, 2, pooled=True)
        self.stage3 = _stage(w2, w3, 3, pooled=True)
        self.stage4 = _stage(w3, w4, 3, pooled=True)
        self.stage5 = _stage(w4, w4, 3, pooled=False)
        self.avgpool = nn.AdaptiveAvgPool2d(2)
        self.fc1 = nn.Linear(4 * w4, w3)
        self.relu1 = nn.ReLU()
        self.fc2 = nn.Linear(w3, w3)
        self.relu2 = nn.ReLU()
        self.fc = nn.Linear(w3, num_classes)
        initialise(self, (self.fc1, self.fc2))

    def forward(self, x: Tensor) -> Tensor:
        """Map images (N, C, H, W) in [0, 1] to logits (N, num_classes)."""
        x = self.stage5(self.stage4(self.stage3(self.stage2(self.stage1(x)))))
        x = self.relu1(self.fc1(torch.flatten(self.avgpool(x), 1)))
        logits: Tensor = self.fc(self.relu2(self.fc2(x)))
        return logits


def _stage(in_channels: int, out_channels: int, convolutions: int, *, pooled: bool) -> nn.Module:
    layers: list[nn.Module] = []
    for channels in [in_channels, *[out_channels] * (convolutions - 1)]:
        layers += [conv3x3(channels, out_channels), nn.BatchNorm2d(out_channels), nn.ReLU()]
    if pooled:
        # Rounded up, so that images smaller than 16 x 16 have a pixel left.
        layers.append(nn.MaxPool2d(2, ceil_mode=True))
    return nn.Sequential(*layers)
