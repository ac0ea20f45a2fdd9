"""Sorted data are told from shuffled ones: first cases whose answer is known, then real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

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
