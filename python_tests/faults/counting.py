"""A model that draws random numbers, and leaves a byte for each batch that it is run on."""

from __future__ import annotations

import os
import time
from pathlib import Path

import torch
from torch import Tensor, nn

PASSED = "REPSIM_FAST_FAULTS_PASSED"  # environment variable: the file for the bytes
BATCH_SIZE = 40  # more than the few samples that first tell where layers have them
_SECONDS = 0.04  # a batch, so that a kill may come between two


class Counting(nn.Module):
    """Two linear layers on 64 numbers a sample."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(64, width), nn.Linear(width, 16)

    def forward(self, x: Tensor) -> Tensor:
        if len(x) == BATCH_SIZE:
            with Path(os.environ[PASSED]).open("ab") as passed:
                passed.write(b".")
            time.sleep(_SECONDS / 2)
        first = self.first(x.flatten(1))
        first += torch.rand_like(first)
        if len(x) == BATCH_SIZE:  # a kill may come before a batch has drawn, or after
            time.sleep(_SECONDS / 2)
        return self.second(first)
