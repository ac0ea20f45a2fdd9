"""Sorted data are told from shuffled ones: first cases whose answer is known, then real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from repsim_fast import data
from repsim_fast.data.order import OrderCheck


def sorted_by(x: Tensor, y: Tensor | None, batch_size: int) -> str | None:
    check = OrderCheck()
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        check.add(x[rows], None if y is None else y[rows])
    return check.sorted_by


def classes(n_classes: int, each: int) -> tuple[Tensor, Tensor]:
    """Samples in class order."""
    y = torch.arange(n_classes).repeat_interleave(each)
    return 2 * torch.randn(n_classes, 64)[y] + torch.randn(len(y), 64), y


@pytest.mark.parametrize("batch_size", [8, 32, 128])
def test_class_order_is_seen_with_and_without_labels(batch_size: int) -> None:
    x, y = classes(10, 128)
    assert sorted_by(x, y, batch_size) == "labels"
    assert sorted_by(x, None, batch_size) == "samples"


def test_ascending_labels_that_occur_once_each_are_an_order() -> None:
    assert sorted_by(torch.randn(60, 5), torch.arange(60), 20) == "labels"


def test_random_orders_are_not_called_sorted() -> None:
    generator = torch.Generator().manual_seed(0)

    def below(high: int, low: int = 2) -> int:
        return int(torch.randint(low, high, (), generator=generator))

    for trial in range(200):
        n, n_classes, batch_size = below(800, 40), below(100), below(129, 4)
        # Classes from frequent to very rare; every third time inputs without a variance.
        weights = torch.rand(n_classes, generator=generator) ** 4 + 1e-3
        y = torch.multinomial(weights, n, replacement=True, generator=generator)
        x = 2 * torch.randn(n_classes, 32, generator=generator)[y]
        x += torch.randn(n, 32, generator=generator)
        if trial % 3 == 0:
            x = torch.distributions.StudentT(2.0).sample((n, 32))
        assert sorted_by(x, y, batch_size) is None, (trial, n, n_classes, batch_size)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (torch.zeros(40, 3), None),
        (torch.zeros(40, 3), torch.zeros(40, dtype=torch.int64)),
        (torch.full((40, 3), torch.nan), None),
        (torch.randint(9, (40, 7)), torch.rand(40)),
        (torch.rand(40), None),
    ],
    ids=["constant", "one class", "NaN", "tokens, float labels", "numbers"],
)
def test_nothing_to_see(x: Tensor, y: Tensor | None) -> None:
    assert sorted_by(x, y, 10) is None
    assert sorted_by(x, y, 40) is None


def test_inputs_of_changing_size_are_no_error() -> None:
    check = OrderCheck()
    for length in (5, 9, 5):
        check.add(torch.randn(8, length), None)
    assert check.sorted_by is None


def test_signals_in_a_small_patch_are_seen() -> None:
    x, y = torch.randn(400, 3, 112, 112), torch.arange(10).repeat_interleave(40)
    x.view(400, -1)[:, 1:41:5] += 4 * torch.randn(10, 8)[y]  # 8 numbers of 37,632
    assert sorted_by(x, None, 40) == "samples"
    assert sorted_by(x[torch.randperm(400)], None, 40) is None


class TestMappings:
    @pytest.mark.parametrize("name", ["input_ids", "pixel_values"])
    def test_their_inputs_are_looked_at(self, name: str) -> None:
        x, _ = classes(10, 128)
        for part in (x, (8 * x).long()):  # images, tokens
            check, shuffled = OrderCheck(), OrderCheck()
            for rows, mixed in zip(
                part.split(64), part[torch.randperm(1280)].split(64), strict=True
            ):
                check.add({"idx": torch.arange(64), "labels": rows, name: rows}, None)
                shuffled.add({"idx": torch.arange(64), "labels": rows, name: mixed}, None)
            assert check.sorted_by == "samples"
            assert shuffled.sorted_by is None

    def test_masks_positions_and_numbers_are_none(self) -> None:
        check = OrderCheck()
        for batch in range(10):
            place = torch.full((16, 5 + batch), batch)
            names = ("attention_mask", "position_ids", "token_type_ids", "labels")
            check.add({**dict.fromkeys(names, place), "idx": place[:, 0]}, None)
        assert check.sorted_by is None


def sentences(classes: Tensor, generator: torch.Generator) -> list[Tensor]:
    """Tokens of a vocabulary that depends on the class, of any length."""
    lengths = torch.randint(3, 40, (len(classes),), generator=generator).tolist()
    return [
        torch.randint(5 * int(c) + 3, 5 * int(c) + 11, (length,), generator=generator)
        for c, length in zip(classes, lengths, strict=True)
    ]


def of_padded(texts: list[Tensor], side: str, padding: int, embedding: Tensor | None) -> str | None:
    """What comes of batches, each padded to the length of its longest text."""
    check = OrderCheck()
    for start in range(0, len(texts), 20):
        batch = pad_sequence(texts[start : start + 20], True, padding, side)
        check.add({"x": batch if embedding is None else embedding[batch]}, None)
    return check.sorted_by


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("padding", [0, 1, 70])
@pytest.mark.parametrize("kind", ["tokens", "vectors"])
def test_texts_padded_to_another_length_in_each_batch(side: str, padding: int, kind: str) -> None:
    embedding = torch.randn(80, 6) if kind == "vectors" else None
    if embedding is not None:
        embedding[padding] = 0
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        y = torch.arange(10).repeat_interleave(20)
        texts = sentences(y, generator)
        mixed = [texts[i] for i in torch.randperm(200, generator=generator).tolist()]
        assert of_padded(mixed, side, padding, embedding) is None, seed
        assert of_padded(texts, side, padding, embedding) == "samples", seed


def test_texts_by_length_are_sorted() -> None:
    texts = sentences(torch.zeros(200), torch.Generator().manual_seed(0))
    assert of_padded(sorted(texts, key=len), "right", 0, None) == "samples"
    assert of_padded(texts, "right", 0, None) is None


@pytest.mark.parametrize(
    "kind", ["normal", "sparse", "heavy", "spikes", "images", "tokens", "dict"]
)
@pytest.mark.parametrize("batch_size", [6, 40])
def test_no_false_alarm_of_twenty_seeds(kind: str, batch_size: int) -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        x = {
            "normal": lambda: torch.randn(300, 5),
            "sparse": lambda: (torch.rand(300, 300) < 0.01).float(),
            "heavy": lambda: torch.distributions.StudentT(1.0).sample((300, 100)),
            "spikes": lambda: 1e3 * (torch.rand(300, 1, 8, 8) < 0.01) + torch.rand(300, 1, 8, 8),
            "images": lambda: torch.rand(300, 3, 1, 1) * torch.rand(300, 3, 8, 8),
            "tokens": lambda: torch.randint(1000, (300, 12)),
            "dict": lambda: torch.randn(300, 3, 4),
        }[kind]()
        check = OrderCheck()
        for rows in x.split(batch_size):
            check.add({"x": rows} if kind == "dict" else rows, None)
        assert check.sorted_by is None, seed


def test_digits_by_class() -> None:
    x, y = data.load("digits", "test").tensors()
    by_class = torch.argsort(y, stable=True)
    assert sorted_by(x[by_class], y[by_class], 32) == "labels"
    assert sorted_by(x[by_class], None, 32) == "samples"
    shuffled = torch.randperm(len(y))
    assert sorted_by(x[shuffled], y[shuffled], 32) is None


@pytest.mark.parametrize("name", ["cifar10", "tiny-imagenette", "imagenet-samples"])
def test_real_images_by_class(data_folder: Path, name: str) -> None:
    x, y = data.load(data_folder / name, "test", limit=1000).tensors()
    by_class = torch.argsort(y, stable=True)
    assert sorted_by(x[by_class], y[by_class], 32) == "labels"
    shuffled = torch.randperm(len(y))
    assert sorted_by(x[shuffled], y[shuffled], 32) is None
