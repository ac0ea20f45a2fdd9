"""Batches of any structure give what the bare tensors give."""

from __future__ import annotations

from collections import UserDict, namedtuple
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from repsim_fast import compare
from repsim_fast.comparison.described import describe

X, Y, ROWS = torch.randn(40, 6), torch.arange(40) % 3, torch.arange(40)
HALVES = (slice(0, 20), slice(20, 40))


class Net(nn.Module):
    """Its argument is no name that a batch would have."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 5)
        self.b = nn.Linear(5, 3)

    def forward(self, features: Tensor) -> Tensor:
        return self.b(self.a(features).relu())


@pytest.fixture
def net() -> nn.Module:
    return Net()


def value(model: nn.Module, data: Any, **options: Any) -> float:
    result = compare(model, data, layers=["a", "b"], **options)
    assert result.n_samples == 40
    return float(result.value[0, 1])


class Items(Dataset[Any]):
    def __init__(self, item: Any) -> None:
        self.item = item

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> Any:
        return self.item(row)


SAMPLES = {
    "array": X.numpy(),
    "reversed twice": X.numpy()[::-1].copy()[::-1],
    "arrays": (X.numpy(), Y.numpy()),
    "labels in a list": (X, Y.tolist()),
    "names for labels": (X, ["one"] * 40),
    "numbers of samples": (X, Y, ROWS),
    "and their names": (X, Y, ROWS, ["name"] * 40),
    "three tensors": TensorDataset(X, Y, ROWS),
    "triples": Items(lambda row: (X[row], int(Y[row]), row)),
    "texts": Items(lambda row: (X[row], "label")),
    "arrays by number": Items(lambda row: (X[row].numpy(), np.int64(Y[row]))),
    "by name": {"features": X},
    "arrays by name": {"features": X.numpy(), "label": Y.numpy()},
    "other names": Items(lambda r: {"image": X[r], "label": int(Y[r]), "id": r, "file": "x.png"}),
    "nested": Items(lambda row: {"inputs": {"features": X[row]}, "target": int(Y[row])}),
    "nested alone": Items(lambda row: {"inputs": {"image": X[row]}}),
}


@pytest.mark.parametrize("data", SAMPLES)
def test_samples(net: nn.Module, data: str) -> None:
    assert value(net, SAMPLES[data]) == value(net, X)


def batches(make: Any) -> list[Any]:
    return [make(part) for part in HALVES]


BATCHES = {
    "arrays": batches(lambda p: X[p].numpy()),
    "pairs of arrays": batches(lambda p: (X[p].numpy(), Y[p].numpy())),
    "read-only arrays": batches(lambda p: np.broadcast_to(X[p].numpy(), (20, 6))),
    "targets of boxes": batches(lambda p: (X[p], [{"boxes": X[p]}] * 20)),
    "a mapping for labels": batches(lambda p: [X[p], {"boxes": X[p]}]),
    "labels by name": batches(lambda p: {"features": X[p], "labels": Y[p], "idx": ROWS[p]}),
    "other mappings": batches(lambda p: UserDict(features=X[p])),
    "alone in a list": batches(lambda p: [X[p]]),
}


@pytest.mark.parametrize("data", BATCHES)
def test_batches(net: nn.Module, data: str) -> None:
    assert value(net, BATCHES[data]) == value(net, batches(lambda p: X[p]))


def test_loaders_of_mappings(net: nn.Module) -> None:
    data = SAMPLES["other names"]
    assert value(net, DataLoader(data, 20)) == value(net, batches(lambda p: X[p]))


class Images(nn.Module):
    """Takes a tensor, or a list of images of any size."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 1)
        self.b = nn.Linear(4, 3)

    def forward(self, images: Tensor | list[Tensor]) -> Tensor:
        if isinstance(images, list):
            return self.b(torch.stack([self.a(x).mean((1, 2)) for x in images]))
        return self.b(self.a(images).mean((2, 3)))


def test_lists_of_images() -> None:
    images = torch.rand(40, 3, 4, 4)
    expected = value(Images(), batches(lambda p: images[p]), maps="pool", seed=1)
    for make in (list, tuple, lambda x: (list(x), [{"boxes": 1}] * 20)):
        torch.manual_seed(0)
        model = Images()
        found = value(model, batches(lambda p, make=make: make(images[p])), maps="pool")
        torch.manual_seed(0)
        expected = value(Images(), batches(lambda p: images[p]), maps="pool")
        assert found == expected


def test_images_of_many_sizes() -> None:
    images = [torch.rand(3, 4 + row % 3, 5) for row in range(40)]
    model = Images()
    result = compare(model, batches(lambda p: images[p]), layers="b", maps="pool")
    assert result.n_samples == 40


Sample = namedtuple("Sample", ["x", "other"])


class Graphs:
    """A batch of another package: an object with tensors that moves by itself."""

    def __init__(self, x: Tensor, graphs: int) -> None:
        self.x, self.num_graphs = x, graphs

    def to(self, device: Any) -> Graphs:
        return Graphs(self.x.to(device), self.num_graphs)


@pytest.mark.parametrize(
    ("make", "forward"),
    [
        (lambda p: ("id", {"deep": [X[p], "text"]}), lambda model, b: model(b[1]["deep"][0])),
        (lambda p: Sample(X[p].numpy(), 3), lambda model, b: model(b.x)),
        (lambda p: Graphs(X[p], 20), lambda model, b: model(b.x)),
        (lambda p: {"x": X[p], "twice": X[p] * 2}, lambda model, b: model(b["twice"] / 2)),
        (lambda p: (X[p], X[p]), lambda model, b: model(b[0])),
    ],
)
def test_forward_says_what_a_model_is_run_on(net: nn.Module, make: Any, forward: Any) -> None:
    expected = value(net, batches(lambda p: X[p]))
    assert value(net, batches(make), forward=forward) == expected


def test_forward_is_given_what_the_data_give(net: nn.Module) -> None:
    options = {"batch_size": 20, "shuffle": False}
    expected = value(net, X, **options)
    assert value(net, X, forward=lambda model, b: model(b), **options) == expected
    assert value(net, (X, Y), forward=lambda model, b: model(b[0]), **options) == expected


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("measure", ["cka", "procrustes_similarity"])
def test_a_batch_of_none_is_left_out(net: nn.Module, measure: str, place: int) -> None:
    data = [X[:20], X[20:40]]
    expected = value(net, data, measure=measure)
    data.insert(place, X[:0])
    with pytest.warns(UserWarning, match="dropped 1 of 3 batches, of 0 samples"):
        assert value(net, data, measure=measure) == expected


def test_forward_of_each_model(net: nn.Module) -> None:
    other = Net()
    twice = {"other": lambda model, b: model(2 * b[0])}
    data = batches(lambda p: (X[p], Y[p]))
    result = compare({"net": net, "other": other}, data, layers="a", forward=twice)
    expected = compare({"net": net, "other": other}, data, layers="a", inputs={"other": _twice})
    assert np.array_equal(result.value, expected.value)
    assert result.settings["forward"] == {"other": describe(twice["other"])}


def _twice(x: Tensor, y: Tensor) -> Tensor:
    return 2 * x


def test_transforms_see_labels_of_any_kind(net: nn.Module) -> None:
    seen = []

    def note(x: Tensor, y: Any) -> Tensor:
        seen.append(y)
        return x

    value(net, batches(lambda p: (X[p], ["text"] * 20)), inputs=note)
    value(net, batches(lambda p: (X[p].numpy(), Y[p].tolist())), inputs=note)
    assert seen[0] == ["text"] * 20
    assert torch.equal(seen[2], Y[:20])


class Words(nn.Module):
    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(tokens, 8)
        self.out = nn.Linear(8, 4)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.out(self.embedding(input_ids))


def tokens(vocabulary: int, length: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(vocabulary)
    ids = torch.randint(vocabulary, (40, length), generator=generator)
    mask = (torch.arange(length) < 1 + torch.arange(40)[:, None] % length).long()
    return {"input_ids": ids, "attention_mask": mask, "token_type": ["text"] * 40}


def test_two_tokenisers_for_two_models() -> None:
    models = {"short": Words(11), "long": Words(30)}
    one, two = tokens(11, 5), tokens(30, 9)
    for each in (one, two):
        del each["token_type"]
    result = compare(models, {"short": one, "long": two}, layers="out", maps="mean")
    assert result.n_samples == 40
    assert np.isfinite(result.value).all()
    loaders = {name: DataLoader(_Rows(each), 20) for name, each in (("short", one), ("long", two))}
    assert compare(models, loaders, layers="out", maps="mean").n_samples == 40


class _Rows(Dataset[Any]):
    def __init__(self, columns: dict[str, Tensor]) -> None:
        self.columns = columns

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> dict[str, Any]:
        return {"text": "a sentence", **{key: all_[row] for key, all_ in self.columns.items()}}


def test_max_batches(net: nn.Module) -> None:
    def endless() -> Iterator[Tensor]:
        while True:
            yield X[:20]

    assert compare(net, endless(), max_batches=3).n_batches == 3
    assert compare(net, X, batch_size=8, max_batches=2).n_samples == 16
    assert compare(net, X, batch_size=8, max_batches=20).n_samples == 40
    with pytest.raises(ValueError, match="max_batches must be a positive integer, got 0"):
        compare(net, X, max_batches=0)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ([(X, Y, X)], TypeError, r"further part \(40, 6\), which would be ignored.*forward=lambda"),
        ([(X, Y, Y[:3])], TypeError, r"further part \(3,\), which would be ignored"),
        ([list(X)], TypeError, r"further part \(6,\), which would be ignored"),
        ([(X, X)], ValueError, "which would be ignored.*or forward=lambda model, batch"),
        ([{"a": "text"}], TypeError, "got dict; forward=lambda"),
        ([[]], TypeError, "batch 0 is empty"),
        ({"features": X, "label": Y[:3]}, ValueError, "the same samples in all, got {'features'"),
        (np.array(3.0), ValueError, "got a single number"),
        (np.array(["a", "b"]), TypeError, "data"),
    ],
)
def test_what_is_not_understood_is_said(
    net: nn.Module, data: Any, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        compare(net, data)
