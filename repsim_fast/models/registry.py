"""Networks by name."""

from __future__ import annotations

import re
from collections.abc import Callable

import torch
from torch import nn

from repsim_fast._core.checks import check_seed
from repsim_fast._core.names import NETWORKS, check_same
from repsim_fast._core.suggestions import did_you_mean

from .cifar_resnet import CifarResNet
from .external import build_timm, build_torchvision
from .preact_resnet import PreActResNet18
from .verifiable_cnn import LargeCNN, SmallCNN
from .vgg import VGG16
from .wide_resnet import WideResNet

# Name as shown to users, its pattern, and a constructor from (match, classes, channels).
_NETWORKS: list[tuple[str, str, Callable[[re.Match[str], int, int], nn.Module]]] = [
    ("resnet-digits", "resnet-digits", lambda m, n, c: CifarResNet(14, n, c)),
    ("resnet-D", r"resnet-(\d+)", lambda m, n, c: CifarResNet(int(m[1]), n, c)),
    ("preactresnet-18", "preactresnet-18", lambda m, n, c: PreActResNet18(n, c)),
    (
        "preactresnet-18-wW",
        r"preactresnet-18-w(\d+)",
        lambda m, n, c: PreActResNet18(n, c, int(m[1])),
    ),
    ("wrn-D-K", r"wrn-(\d+)-(\d+)", lambda m, n, c: WideResNet(int(m[1]), int(m[2]), n, c)),
    ("vgg-16", "vgg-16", lambda m, n, c: VGG16(n, c)),
    ("vgg-16-wW", r"vgg-16-w(\d+)", lambda m, n, c: VGG16(n, c, int(m[1]))),
    ("cnn-small", "cnn-small", lambda m, n, c: SmallCNN(n, c)),
    ("cnn-small-wW", r"cnn-small-w(\d+)", lambda m, n, c: SmallCNN(n, c, int(m[1]))),
    ("cnn-large", "cnn-large", lambda m, n, c: LargeCNN(n, c)),
    ("cnn-large-wW", r"cnn-large-w(\d+)", lambda m, n, c: LargeCNN(n, c, int(m[1]))),
    ("torchvision:NAME", "torchvision:(.+)", lambda m, n, c: build_torchvision(m[1], n, c)),
    ("timm:NAME", "timm:(.+)", lambda m, n, c: build_timm(m[1], n, c)),
]
check_same(NETWORKS, (name for name, _, _ in _NETWORKS))

# Numbers filled in, for suggestions.
_EXAMPLES = ("wrn-28-10", "resnet-20", "preactresnet-18-w16", "torchvision:resnet18")


def available() -> list[str]:
    """List the names `build` takes; capitals stand for a number or name of your choice."""
    return list(NETWORKS)


def build(
    name: str, *, num_classes: int, in_channels: int = 3, seed: int | None = None
) -> nn.Module:
    """Build an untrained network, on the CPU and in training mode.

    Images go in as they are, in [0, 1], not normalised by mean and standard deviation.
    Pooling before the linear layers lets the networks of this package take any image size.

    Args:
        name: without regard to case, one of
            "resnet-digits": a residual network of 14 layers for 8x8 images, trained in seconds;
            "resnet-D": residual network for CIFAR, "resnet-20" for one, D = 6n + 2;
            "preactresnet-18": pre-activation ResNet-18 for CIFAR, 64 wide at the beginning;
            "preactresnet-18-wW": the same W wide, "preactresnet-18-w16" for one;
            "wrn-D-K": wide residual network, "wrn-28-10" for one, D = 6n + 4;
            "vgg-16": VGG-16 with batch norm for CIFAR, 64 wide at the beginning;
            "cnn-small", "cnn-large": two and four convolutions without norms, 16
            and 32 wide at the beginning, for verified bounds;
            "vgg-16-wW", "cnn-small-wW", "cnn-large-wW": the same W wide;
            "torchvision:NAME", "timm:NAME": a classifier of those packages, without weights.
        num_classes: number of outputs, at least 1.
        in_channels: channels of the images, at least 1.
        seed: seed of the initial weights; None draws one from the operating system. The global
            random state is left as it was in both cases.

    Raises:
        ValueError: unknown name, or a number out of range.
        ImportError: the package of a "torchvision:" or "timm:" name is missing.

    Example:
        >>> from repsim_fast import models
        >>> net = models.build("wrn-28-10", num_classes=10, seed=0)
        >>> sum(p.numel() for p in net.parameters())
        36479194
    """
    for option, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise ValueError(f"{option} must be at least 1, got {value}")
    for _, pattern, construct in _NETWORKS:
        if match := re.fullmatch(pattern, name, re.IGNORECASE):
            # Only the CPU generator is saved and seeded, so nothing may be drawn elsewhere.
            with torch.random.fork_rng(devices=[]), torch.device("cpu"):
                if seed is None:
                    torch.default_generator.seed()
                else:
                    torch.default_generator.manual_seed(check_seed(seed))
                return construct(match, num_classes, in_channels)
    known = [*available(), *_EXAMPLES]
    meant = did_you_mean(name, known)
    raise ValueError(f"unknown model {name!r};{meant} there are {', '.join(available())}")
