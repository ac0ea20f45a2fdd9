"""The in-memory image set: conversion, batches, subsets, checks."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import DataLoader

from python_tests.support.op_tester import devices
from repsim_fast.data import ImageData


@pytest.fixture
def images() -> ImageData:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (10, 3, 4, 5), generator=generator, dtype=torch.uint8)
    pixels[0, 0, 0, 0], pixels[0, 0, 0, 1] = 0, 255
    return ImageData(pixels, torch.arange(10) % 3, ("a", "b", "c"), "noise", "test")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_item_is_a_float_image_and_an_int(images):
    image, label = images[4]
    assert image.dtype == torch.float32
    assert type(label) is int
    assert label == 1
    assert torch.equal(image, images.images[4].float() / 255)


def test_range_ends_exactly_at_0_and_1(images):
    floats, labels = images.tensors()
    assert floats[0, 0, 0, 0] == 0
    assert floats[0, 0, 0, 1] == 1
    assert floats.shape == (10, 3, 4, 5)
    assert torch.equal(labels, images.labels)


def test_batches_in_order_cover_everything_once(images):
    batches = list(images.batches(4))
    assert [len(labels) for _, labels in batches] == [4, 4, 2]
    assert torch.equal(torch.cat([x for x, _ in batches]), images.tensors()[0])
    assert torch.equal(torch.cat([y for _, y in batches]), images.labels)


def test_batches_agree_with_a_dataloader(images):
    for ours, theirs in zip(images.batches(4), DataLoader(images, 4), strict=True):
        assert torch.equal(ours[0], theirs[0])
        assert torch.equal(ours[1], theirs[1])


def test_drop_last(images):
    assert [len(y) for _, y in images.batches(4, drop_last=True)] == [4, 4]
    assert [len(y) for _, y in images.batches(5, drop_last=True)] == [5, 5]


def test_shuffle_is_a_permutation_fixed_by_the_generator(images):
    first, again = ([*images.batches(4, shuffle=True, generator=generator())] for _ in range(2))
    flat = torch.cat([x for x, _ in first])
    assert torch.equal(flat, torch.cat([x for x, _ in again]))
    assert not torch.equal(flat, images.tensors()[0])
    rows = [int((images.tensors()[0] == x).flatten(1).all(1).nonzero()) for x in flat]
    assert sorted(rows) == list(range(10))
    assert torch.equal(torch.cat([y for _, y in first]), images.labels[rows])


def test_next_epoch_has_another_order(images):
    source = generator()
    first = torch.cat([x for x, _ in images.batches(10, shuffle=True, generator=source)])
    second = torch.cat([x for x, _ in images.batches(10, shuffle=True, generator=source)])
    assert not torch.equal(first, second)


def test_shuffling_leaves_the_global_random_state(images):
    before = torch.random.get_rng_state()
    list(images.batches(4, shuffle=True, generator=generator()))
    images.subset(3)
    assert torch.equal(before, torch.random.get_rng_state())


def test_bad_batches_fail_at_the_call(images):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        images.batches(0)
    with pytest.raises(ValueError, match="needs a generator"):
        images.batches(4, shuffle=True)


def test_subset_keeps_order_and_nests(images):
    small, large = images.subset(4, seed=3), images.subset(7, seed=3)
    rows = [
        [int((images.images == x).flatten(1).all(1).nonzero()) for x in part.images]
        for part in (small, large)
    ]
    assert rows[0] == sorted(set(rows[0]))
    assert set(rows[0]) < set(rows[1])
    assert torch.equal(small.labels, images.labels[rows[0]])
    assert (small.classes, small.name, small.split) == (("a", "b", "c"), "noise", "test")
    assert not torch.equal(small.images, images.subset(4, seed=4).images)


@pytest.mark.parametrize("n", [0, 11])
def test_subset_out_of_range(images, n):
    with pytest.raises(ValueError, match=rf"n must lie in 1\.\.10, got {n}"):
        images.subset(n)


@pytest.mark.parametrize("device", devices())
def test_moved_set_serves_batches_where_it_is(images, device):
    moved = images.to(device)
    for ours, theirs in zip(
        moved.batches(4, shuffle=True, generator=generator()),
        images.batches(4, shuffle=True, generator=generator()),
        strict=True,
    ):
        assert ours[0].device.type == ours[1].device.type == device
        assert torch.equal(ours[0].cpu(), theirs[0])
        assert torch.equal(ours[1].cpu(), theirs[1])


def test_repr_names_what_it_is(images):
    assert repr(images) == "ImageData(noise test: 10 images 3x4x5, 3 classes)"


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"images": torch.zeros(2, 1, 2, 2)}, TypeError, "images must be torch.uint8"),
        ({"labels": torch.zeros(2)}, TypeError, "labels must be torch.int64"),
        ({"images": torch.zeros(2, 2, 2, dtype=torch.uint8)}, ValueError, r"\(N, C, H, W\)"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, ValueError, "one for each of the 2"),
        ({"labels": torch.tensor([0, 2])}, ValueError, r"0\.\.1 \(2 classes\), got 2 at row 1"),
        ({"labels": torch.tensor([-1, 0])}, ValueError, "got -1 at row 0"),
    ],
)
def test_wrong_parts(change, error, message):
    parts = {
        "images": torch.zeros(2, 1, 2, 2, dtype=torch.uint8),
        "labels": torch.tensor([0, 1]),
    } | change
    with pytest.raises(error, match=message):
        ImageData(**parts, classes=("a", "b"), name="x", split="train")
