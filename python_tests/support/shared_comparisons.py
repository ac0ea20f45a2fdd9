"""Comparisons that one process and several ones must agree on."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from repsim_fast import SimilarityResult, compare

Options = dict[str, Any]


def network(seed: int, side: int = 6) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3),
        nn.BatchNorm2d(3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(3 * (side - 2) ** 2, 4),
    )


class Sometimes(nn.Module):
    """Has a layer that only batches with a large first number bring."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.always, self.sometimes = nn.Linear(36, 3), nn.Linear(36, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = x.flatten(1)
        return self.always(flat) + (self.sometimes(flat) if flat[0, 0] > 0.3 else 0)


class Stops(nn.Module):
    """A model that draws random numbers, counts its passes, and fails in one of them."""

    def __init__(self, inner: nn.Module, at: int | None = None, error: Any = RuntimeError) -> None:
        super().__init__()
        self.inner, self.passes, self.at, self.error = inner, 0, at, error

    def forward(self, x: Tensor) -> Tensor:
        noisy = x + torch.rand_like(x)
        if len(x) > 4:  # more than those that tell where layers have their samples
            self.passes += 1
            if self.passes == self.at:
                raise self.error("the machine is gone")
        return self.inner(noisy)


class Counted(Dataset[Tensor]):
    """Knows which samples were read."""

    def __init__(self, x: Tensor) -> None:
        self.x, self.read = x, list[int]()

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Tensor:
        self.read.append(i)
        return self.x[i]


def images(n: int) -> Tensor:
    return torch.rand(n, 1, 6, 6, generator=torch.Generator().manual_seed(0))


def _loader(n: int) -> DataLoader[Any]:
    labels = torch.arange(n)
    return DataLoader(TensorDataset(images(n), labels), batch_size=8, shuffle=True)


def _in_order() -> list[tuple[Tensor, Tensor]]:
    """Batches class by class; the last one is too small for the unbiased estimator."""
    x, y = images(83), torch.arange(83) // 20
    return list(zip(x.split(16), y.split(16), strict=True))


CASES: dict[str, Callable[[Options], SimilarityResult]] = {
    "tensor": lambda o: compare(network(0), network(1), images(90), batch_size=8, **o),
    "biased": lambda o: compare(network(0), images(90), batch_size=8, estimator="biased", **o),
    "float64": lambda o: compare(network(0).double(), images(50).double(), batch_size=8, **o),
    "loader": lambda o: compare(network(0), _loader(90), **o),
    "in order": lambda o: compare(network(0), _in_order(), **o),
    "iterator": lambda o: compare(network(0), iter(images(64).split(16)), **o),
    # More batches than groups for the jackknife, of which there are 64.
    "many batches": lambda o: compare(network(0), images(560), batch_size=4, **o),
    "passes": lambda o: compare(network(0), images(50), batch_size=16, passes=2, **o),
    "fewer batches": lambda o: compare(network(0), images(16), batch_size=8, **o),
    "one batch": lambda o: compare(network(0), images(16), batch_size=16, **o),
    "positions": lambda o: compare(
        network(0), images(40), batch_size=8, maps="positions", layers=["0", "2"], **o
    ),
    "sometimes": lambda o: compare(Sometimes(), images(80), batch_size=8, **o),
    "cca": lambda o: compare(network(0), network(1), images(90), batch_size=16, measure="cca", **o),
    "procrustes": lambda o: compare(
        network(0), images(60), batch_size=16, measure="procrustes_similarity", maps="pool", **o
    ),
    "ids": lambda o: compare(
        network(0), images(50), batch_size=8, ids=[f"image {i}" for i in range(50)], **o
    ),
    "one batch, cca": lambda o: compare(
        network(0), images(40), batch_size=40, measure="cca", maps="pool", **o
    ),
}


def compared(name: str, **options: Any) -> SimilarityResult:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return CASES[name](options)
