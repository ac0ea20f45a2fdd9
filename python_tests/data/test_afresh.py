"""Worker processes that stay must not carry random numbers from one pass to the next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from repsim_fast import compare
from repsim_fast.training import Epoch, Saving, evaluate, train


class Noisy(Dataset[tuple[Tensor, Tensor]]):
    """Images with noise that the worker draws."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return torch.rand(1, 6, 6), torch.tensor(index % 4)


class Named(DataLoader[Any]):
    """A loader of somebody's own."""

    name = "mine"


def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 4))


def loader(*, stay: bool, kind: type[DataLoader[Any]] = DataLoader) -> DataLoader[Any]:
    return kind(Noisy(), batch_size=16, shuffle=True, num_workers=1, persistent_workers=stay)


def losses(data: Any, **options: Any) -> list[float]:
    history = train(net(), data, epochs=3, lr=0.05, seed=1, progress=False, **options)
    return [epoch.loss for epoch in history.epochs]


@pytest.mark.parametrize("kind", [DataLoader, Named])
def test_the_same_seed_trains_alike(kind: type[DataLoader[Any]]) -> None:
    staying = loader(stay=True, kind=kind)
    want = losses(loader(stay=False))
    assert len(set(want)) == 3
    assert losses(staying) == want
    next(iter(staying))  # the caller's own reading
    assert losses(staying) == want


def test_resumed_is_bit_identical(tmp_path: Path) -> None:
    def stop(model: nn.Module, record: Epoch) -> None:
        raise OSError("killed")

    want = losses(loader(stay=True))
    with pytest.raises(RuntimeError, match="killed"):
        losses(loader(stay=True), on_epoch=stop, saving=Saving(tmp_path))
    assert losses(loader(stay=True), saving=Saving(tmp_path, resume=True)) == want


def test_each_evaluation_is_the_same() -> None:
    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        seen.append(x)
        return x

    staying, seen = loader(stay=True), list[Tensor]()
    for _ in range(2):
        evaluate(net(), staying, attack)
    first, second = torch.cat(seen).chunk(2)
    assert torch.equal(first, second)


def test_each_comparison_is_the_same() -> None:
    staying = loader(stay=True)
    first, second = (
        compare({"a": net(), "b": net()}, staying, layers=["1", "3"])["a", "b"]["1", "3"]
        for _ in range(2)
    )
    assert first == second
