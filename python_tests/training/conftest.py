"""Digits and small networks on which training is checked."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repsim_fast import data

Pair = tuple[Tensor, Tensor]


@pytest.fixture(scope="session")
def digits() -> tuple[Pair, Pair]:
    """1,400 training and 397 test images, 8 x 8, in [0, 1]."""
    with np.load(Path(data.__file__).with_name("digits.npz")) as held:
        images = torch.tensor(held["images"] / 16, dtype=torch.float32).unsqueeze(1)
        labels = torch.tensor(held["labels"], dtype=torch.int64)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    first, rest = order[:1400], order[1400:]
    return (images[first], labels[first]), (images[rest], labels[rest])


@pytest.fixture(scope="session")
def few(digits: tuple[Pair, Pair]) -> Pair:
    """200 training images."""
    images, labels = digits[0]
    return images[:200], labels[:200]


@pytest.fixture(scope="session")
def small_net() -> Callable[..., nn.Module]:
    """Builds a small conv net, the same every time; optionally with dropout."""

    def build(*, dropout: float = 0.0, width: int = 16) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(
                nn.Conv2d(1, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
                nn.Conv2d(width, 2 * width, 3, stride=2, padding=1),
                nn.BatchNorm2d(2 * width),
                nn.ReLU(),
                nn.Flatten(),
                nn.Dropout(dropout),
                nn.Linear(2 * width * 16, 10),
            )

    return build
