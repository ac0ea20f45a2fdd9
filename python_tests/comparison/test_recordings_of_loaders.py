"""Recordings of loaders that draw their order from torch's own generator."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from repsim_fast import compare, record


def test_they_are_held_against_their_loader(
    net_a: nn.Module, images: Tensor, tmp_path: Path
) -> None:
    loader = DataLoader(TensorDataset(images), 10, shuffle=True)
    torch.manual_seed(1)
    first = record(net_a, loader, tmp_path / "first", seed=3)
    torch.manual_seed(2)
    second = record(net_a, loader, tmp_path / "second", seed=3)
    state = torch.get_rng_state()
    alone = compare([first, second])
    together = compare([first, second], loader, seed=3)
    assert (alone.value == together.value).all()
    assert torch.equal(torch.get_rng_state(), state)
