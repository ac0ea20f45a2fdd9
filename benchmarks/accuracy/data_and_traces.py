"""Order of the samples, streams, bare data sets, and what a comparison leaves behind: before and
after.

    python benchmarks/accuracy/data_and_traces.py --before CHECKOUT \
        --out benchmarks/results/accuracy/data_and_traces.json

Values have as truth debiased CKA of all samples in float64. Of traces a case says how many of the
things that were there before are others afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset
from versions import compare_versions  # before repsim_fast: it finds the version

from python_tests.support.written_out import debiased_cka
from repsim_fast import compare
from repsim_fast.capture import list_layers


class Features(nn.Module):
    """A layer that returns the features of samples given by their numbers."""

    def __init__(self, features: Tensor) -> None:
        super().__init__()
        self.features = features
        self.layer = nn.Hardtanh(-1e9, 1e9)

    def forward(self, rows: Tensor) -> Tensor:
        return self.layer(self.features[rows.long()])


@functools.cache
def by_class() -> tuple[Tensor, Tensor, Tensor]:
    """Ten class centres and a rotation of them with noise, 128 samples a class in class order."""
    generator = torch.Generator().manual_seed(0)
    centres = 2 * torch.randn(10, 64, generator=generator)
    rotation = torch.linalg.qr(torch.randn(64, 64, generator=generator)).Q
    labels = torch.arange(10).repeat_interleave(128)
    x, y = (
        part[labels] + torch.randn(1280, 64, generator=generator)
        for part in (centres, centres @ rotation)
    )
    return x, y, labels


def in_class_order(kind: str) -> float:
    x, y, labels = by_class()
    rows = torch.arange(1280.0)
    data = {
        "tensors": rows,
        "a data set": TensorDataset(rows, labels),
        "a loader, batches of 64": DataLoader(TensorDataset(rows, labels), 64),
    }[kind]
    return cell(compare([Features(x), Features(y)], data, names=["a", "b"]))


def cell(result: object) -> float:
    return float(result.between("a", "b").value[0, 0])


@functools.cache
def two_streams() -> tuple[Tensor, Tensor]:
    """Noisy copies of the same samples."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(512, 16, generator=generator)
    return x, x + torch.randn(512, 16, generator=generator)


def identity() -> nn.Module:
    return nn.Sequential(nn.Hardtanh(-1e9, 1e9))


def zipped() -> float:
    loaders = (DataLoader(x, 64) for x in two_streams())
    return cell(
        compare([identity(), identity()], list(zip(*loaders, strict=True)), names=["a", "b"])
    )


def by_model() -> float:
    x, y = two_streams()
    return cell(compare({"a": identity(), "b": identity()}, {"a": x, "b": y}))


class Images(Dataset[Tensor]):
    """64 samples (6, 48), without labels."""

    def __getitem__(self, number: int) -> Tensor:
        if not 0 <= number < 64:
            raise IndexError
        return torch.randn(6, 48, generator=torch.Generator().manual_seed(number))

    def __len__(self) -> int:
        return 64


class Stream(IterableDataset[Tensor]):
    """The same one after another."""

    def __iter__(self) -> Iterator[Tensor]:
        yield from (Images()[k] for k in range(64))


def samples(data: object) -> int:
    return compare([nn.Sequential(nn.Linear(48, 8))], data).n_samples


class Restless(nn.Module):
    """A norm that runs in training mode by itself, and dropout by function."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.last = nn.BatchNorm1d(5), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.norm.running_mean, self.norm.running_var
        x = nn.functional.batch_norm(x, mean, variance, training=True)
        return self.last(nn.functional.dropout(x, 0.5, training=True))


def buffers_changed(what: str) -> int:
    model, x = Restless(), torch.randn(64, 5, generator=torch.Generator().manual_seed(2))
    before = {name: value.clone() for name, value in model.named_buffers()}
    run(what, model, DataLoader(TensorDataset(x), 16), x)
    return sum(not torch.equal(value, before[name]) for name, value in model.named_buffers())


def random_state_changed(what: str) -> int:
    model, x = Restless(), torch.randn(64, 5, generator=torch.Generator().manual_seed(2))
    before = torch.get_rng_state()
    run(what, model, DataLoader(TensorDataset(x), 16, shuffle=True), x)
    return int(not torch.equal(torch.get_rng_state(), before))


def run(what: str, model: nn.Module, loader: DataLoader[Tensor], x: Tensor) -> None:
    if what == "compare":
        compare([model], loader)
    else:
        list_layers(model, x)


ORDERS = ("tensors", "a data set", "a loader, batches of 64")
WHAT = ("compare", "list_layers")
CASES = {
    **{f"ten classes in order, {kind}": functools.partial(in_class_order, kind) for kind in ORDERS},
    "two streams zipped": zipped,
    "two streams by model": by_model,
    "samples of 64 of (6, 48), a data set": lambda: samples(Images()),
    "samples of 64 of (6, 48), a stream": lambda: samples(Stream()),
    **{f"buffers of 3 that {w} changes": functools.partial(buffers_changed, w) for w in WHAT},
    **{
        f"global random states of 1 that {w} changes": functools.partial(random_state_changed, w)
        for w in WHAT
    },
}
TRUTH = {
    **{f"ten classes in order, {kind}": lambda: debiased_cka(*by_class()[:2]) for kind in ORDERS},
    "two streams zipped": lambda: debiased_cka(*two_streams()),
    "two streams by model": lambda: debiased_cka(*two_streams()),
    "samples of 64 of (6, 48), a data set": lambda: 64,
    "samples of 64 of (6, 48), a stream": lambda: 64,
    **{f"buffers of 3 that {w} changes": lambda: 0 for w in WHAT},
    **{f"global random states of 1 that {w} changes": lambda: 0 for w in WHAT},
}

if __name__ == "__main__":
    compare_versions(CASES, TRUTH)
