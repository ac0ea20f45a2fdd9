"""Every kind of data as batches: order, sizes, paired streams, refusals."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from repsim_fast import data
from repsim_fast.data.batches import Batch, PerModel, open_data

X, Y = torch.arange(40.0).unsqueeze(1), torch.arange(40) % 3


@pytest.mark.parametrize("form", ["whole", "pair", "batches", "mapping"])
def test_masked_values_are_not_taken_for_numbers(form: str) -> None:
    x = np.ma.masked_less(X.numpy(), 3)
    given = {"whole": x, "pair": (x, Y.numpy()), "batches": [(x, Y)], "mapping": [{"x": x}]}[form]
    with pytest.raises(ValueError, match=r"masked array of shape \(40, 1\) with 3 masked"):
        list(open_data(given, batch_size=8, shuffle=False).batches)


class ByNumber:
    """Samples by number that know nothing of torch."""

    def __len__(self) -> int:
        return 40

    def __getitem__(self, row: int) -> tuple[Tensor, int]:
        return X[row], int(Y[row])


class Own(Dataset[Tensor]):
    """Single samples (6, 48) without labels."""

    def __len__(self) -> int:
        return 64

    def __getitem__(self, row: int) -> Tensor:
        return torch.full((6, 48), float(row))


class Stream(IterableDataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __iter__(self) -> Iterator[Any]:
        return iter(self.items)


class Backwards(RandomSampler):
    """A sampler whose base class alone is random."""

    def __iter__(self) -> Iterator[int]:
        return iter(range(len(self) - 1, -1, -1))


def loader(seed: int | None = None) -> DataLoader[Any]:
    """A loader that shuffles by itself."""
    generator = None if seed is None else torch.Generator().manual_seed(seed)
    return DataLoader(X, 10, shuffle=True, generator=generator)


SAMPLES = {
    "pair": (X, Y),
    "data set": TensorDataset(X, Y),
    "by number": ByNumber(),
}


def rows(batches: list[Batch]) -> list[int]:
    return [int(v) for batch in batches for v in batch.x.flatten()]


@pytest.mark.parametrize("kind", SAMPLES)
def test_samples_come_in_a_seeded_random_order(kind: str) -> None:
    first, again, other = (
        rows(list(open_data(SAMPLES[kind], batch_size=16, seed=seed).batches)) for seed in (3, 3, 4)
    )
    assert first == again != other
    assert sorted(first) == list(range(40)) != first


@pytest.mark.parametrize("kind", SAMPLES)
def test_labels_stay_with_their_samples(kind: str) -> None:
    feed = open_data(SAMPLES[kind], batch_size=16)
    batches = list(feed.batches)
    assert [batch.n for batch in batches] == [16, 16, 8]
    assert feed.n_batches == 3
    for batch in batches:
        assert torch.equal(batch.y, Y[batch.x.flatten().long()])


def test_all_kinds_have_one_order() -> None:
    assert len({tuple(rows(list(open_data(d, seed=5).batches))) for d in SAMPLES.values()}) == 1


@pytest.mark.parametrize("kind", SAMPLES)
def test_order_as_given_on_request(kind: str) -> None:
    feed = open_data(SAMPLES[kind], batch_size=16, shuffle=False)
    assert rows(list(feed.batches)) == list(range(40))
    assert feed.order == "as given"


def test_images_in_memory() -> None:
    images = data.load("digits", "test")
    batches = list(open_data(images, batch_size=100, seed=1).batches)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.cat([b.x for b in batches]), images.tensors()[0][order])
    assert torch.equal(torch.cat([b.y for b in batches]), images.labels[order])


def test_each_pass_has_an_order_of_its_own() -> None:
    feed = open_data(X, batch_size=40, passes=2)
    first, second = (rows([batch]) for batch in feed.batches)
    assert sorted(first) == sorted(second)
    assert first != second


@pytest.mark.parametrize(
    ("n", "sizes"),
    [
        (4, [4]),
        (17, [9, 8]),
        (64, [8] * 8),
        (128, [13] * 8 + [12] * 2),
        (1000, [100] * 10),
        (1280, [128] * 10),
        (1290, [129] * 10),
    ],
)
def test_ten_even_batches_by_default(n: int, sizes: list[int]) -> None:
    feed = open_data(torch.rand(n, 2))
    assert [batch.n for batch in feed.batches] == sizes
    assert feed.batch_size == max(sizes)


def test_single_samples_without_labels_are_gathered() -> None:
    batches = list(open_data(Own(), batch_size=16).batches)
    assert [tuple(batch.x.shape) for batch in batches] == [(16, 6, 48)] * 4


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state()
    for source in (*SAMPLES.values(), Own(), data.load("digits", "test")):
        list(open_data(source).batches)
    assert torch.equal(torch.get_rng_state(), before)


class TestBatchedData:
    def test_loaders_keep_their_order_and_are_looked_at(self) -> None:
        feed = open_data(DataLoader(TensorDataset(X, torch.arange(40) // 10), 10))
        assert rows(list(feed.batches)) == list(range(40))
        assert feed.order == "as given"
        assert feed.check is not None
        assert feed.check.sorted_by == "labels"

    def test_shuffling_loaders_are_not(self) -> None:
        feed = open_data(DataLoader(TensorDataset(X, Y), 10, shuffle=True))
        assert feed.check is None
        assert feed.order == "random"

    @pytest.mark.parametrize(
        ("sampler", "random"),
        [
            (RandomSampler(X), True),
            (SubsetRandomSampler(range(40)), True),
            (WeightedRandomSampler([1.0] * 40, 40), True),
            (DistributedSampler(X, 1, 0, shuffle=True), True),
            (DistributedSampler(X, 1, 0, shuffle=False), False),
            (SequentialSampler(X), False),
            (Backwards(X), False),
            (list(range(40)), False),
        ],
    )
    def test_only_samplers_known_to_be_random_are_trusted(self, sampler: Any, random: bool) -> None:
        for stream in (
            DataLoader(TensorDataset(X), 10, sampler=sampler),
            DataLoader(TensorDataset(X), batch_sampler=BatchSampler(sampler, 10, drop_last=False)),
        ):
            feed = open_data(stream)
            assert (feed.order == "random") == (feed.check is None) == random

    @pytest.mark.parametrize("label", [3, torch.tensor(3)])
    def test_single_samples_are_refused(self, label: int | Tensor) -> None:
        stream = Stream([(torch.rand(6, 48), label)])
        with pytest.raises(ValueError, match=r"item 0 is a single sample.*DataLoader"):
            list(open_data(stream).batches)

    def test_bare_streams_of_tensors_are_asked_what_they_are(self) -> None:
        stream = Stream(list(torch.rand(64, 6, 48)))
        with pytest.raises(ValueError, match="may hold samples or batches"):
            list(open_data(stream).batches)
        batches = DataLoader(stream, batch_size=16)
        assert [batch.n for batch in open_data(batches).batches] == [16] * 4
        batches = DataLoader(stream, batch_size=None)
        assert [batch.n for batch in open_data(batches).batches] == [6] * 64

    def test_no_order_of_choice(self) -> None:
        with pytest.raises(ValueError, match="shuffle=True needs samples"):
            open_data([X], shuffle=True)


def test_a_second_stream_is_not_taken_for_labels() -> None:
    loaders = [DataLoader(TensorDataset(torch.rand(8, 3)), 4) for _ in range(2)]
    zipped = zip(*([x for (x,) in loader] for loader in loaders), strict=True)
    with pytest.raises(ValueError, match="second part of batch 0 has the shape of the first"):
        list(open_data(zipped).batches)


@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_a_mask_is_not_taken_for_labels(dtype: torch.dtype) -> None:
    ids = torch.randint(9, (16, 5))
    for stream in ([(ids, ids.to(dtype))], (ids, ids.to(dtype))):
        with pytest.raises(ValueError, match=r'mask.*\{"input_ids": ids, "attention_mask": mask\}'):
            list(open_data(stream).batches)


@pytest.mark.parametrize("name", ["labels", "label", "y", "targets", "target"])
def test_labels_within_a_mapping_are_labels(name: str) -> None:
    (batch,) = open_data([{"x": X, name: Y}]).batches
    assert torch.equal(batch.y, Y)
    assert name in batch.x


def test_numbers_as_labels_are_labels() -> None:
    (batch,) = open_data([(torch.rand(8, 3), torch.rand(8))]).batches
    assert batch.y is not None


class TestPairedStreams:
    MODELS = ("a", "b")

    def test_the_same_samples_in_one_order(self) -> None:
        feed = open_data({"a": (X, Y), "b": (100 + X, Y)}, models=self.MODELS, batch_size=16)
        for batch in feed.batches:
            assert isinstance(batch.x, PerModel)
            assert torch.equal(batch.x["b"], 100 + batch.x["a"])
            assert torch.equal(batch.y, Y[batch.x["a"].flatten().long()])

    def test_loaders(self) -> None:
        streams = {name: DataLoader(TensorDataset(X, Y), 16) for name in self.MODELS}
        assert [batch.n for batch in open_data(streams, models=self.MODELS).batches] == [16, 16, 8]

    @pytest.mark.parametrize("kind", ["generators", "distributed", "subsets"])
    def test_loaders_of_one_random_order(self, kind: str) -> None:
        def subset() -> DataLoader[Any]:
            generator = torch.Generator().manual_seed(3)
            return DataLoader(X, 10, sampler=SubsetRandomSampler(range(20), generator))

        make = {
            "generators": lambda: loader(1),
            "distributed": lambda: DataLoader(X, 10, sampler=DistributedSampler(X, 1, 0)),
            "subsets": subset,
        }[kind]
        for batch in open_data({"a": make(), "b": make()}, models=self.MODELS).batches:
            assert torch.equal(batch.x["a"], batch.x["b"])

    @pytest.mark.parametrize(
        ("streams", "message"),
        [
            ({"a": X, "c": X}, r"a mapping must have the inputs of each model.*\['a', 'b'\]"),
            ({"a": X, "b": X[:30]}, r"same samples in the same order, got \[40, 30\]"),
            ({"a": X, "b": [X]}, "must all come in batches, or all as samples"),
            ({"a": [X, X], "b": [X]}, "stream ended before the others, after 1 batches"),
            ({"a": [X], "b": [X[:30]]}, "batch 0 must hold the same samples for all models"),
            ({"a": (X, Y), "b": (X, Y.flip(0))}, "labels of batch 0 differ between models"),
            (
                {"a": [{"x": X, "labels": Y}], "b": [{"x": X, "labels": Y.flip(0)}]},
                "labels of batch 0 differ between models",
            ),
            ({"a": loader(), "b": loader()}, "draws a random order of its own"),
            ({"a": loader(), "b": DataLoader(X, 10)}, "draws a random order of its own"),
            ({"a": loader(1), "b": loader(2)}, "draws a random order of its own"),
            (dict.fromkeys("ab", loader(1)), "draws a random order of its own"),
        ],
    )
    def test_what_does_not_belong_together(self, streams: Any, message: str) -> None:
        with pytest.raises(ValueError, match=message):
            list(open_data(streams, models=self.MODELS).batches)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"batch_size": 0}, ValueError, "batch_size must be a positive integer, got 0"),
        ({"passes": 0}, ValueError, "passes must be a positive integer, got 0"),
        ({"seed": 0.5}, TypeError, "seed must be an integer, got float"),
        ({"passes": 2, "shuffle": False}, ValueError, "needs a new order each time"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        open_data(X, **arguments)
