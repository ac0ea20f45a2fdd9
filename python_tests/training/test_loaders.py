"""Training and evaluation on data that come in batches of their own."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from repsim_fast._core.memory_format import fastest_layout, laid_out
from repsim_fast.attacks import PGD
from repsim_fast.training import (
    Epoch,
    Evaluation,
    History,
    OverfittingDetector,
    Saving,
    StopTraining,
    evaluate,
    train,
)
from repsim_fast.training.faster_form import faster_form, in_form

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]


def run(net: nn.Module, data: Any, **options: Any) -> History:
    return train(net, data, seed=3, progress=False, **options)


def shuffling(data: Pair, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*data), batch_size=32, shuffle=True, **options)


def weights(net: nn.Module) -> Tensor:
    return torch.cat([value.detach().flatten().double() for value in net.state_dict().values()])


def test_batches_are_trained_on_in_the_order_given(small_net: Build, few: Pair) -> None:
    batches = list(zip(few[0].split(48), few[1].split(48), strict=True))
    net, other = small_net(), small_net()
    run(net, batches, epochs=2, lr=0.1, schedule="constant")
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    with contextlib.ExitStack() as stack:  # to the last bit
        layout = stack.enter_context(fastest_layout(other, few[0]))
        image = laid_out(few[0][:1], layout)
        stack.enter_context(in_form(faster_form(other, image, layout)))
        for x, y in 2 * batches:
            optimizer.zero_grad()
            nn.functional.cross_entropy(other(laid_out(x, layout)), y).backward()
            optimizer.step()
    assert torch.equal(weights(net), weights(other))


def test_two_batches_in_a_list_are_no_pair_of_images_and_labels(
    small_net: Build, few: Pair
) -> None:
    halves = [(few[0][:100], few[1][:100]), (few[0][100:], few[1][100:])]
    history = run(small_net(), halves, epochs=1)
    assert history.last.train_accuracy > 0.1
    named = [{"pixel_values": x, "labels": y} for x, y in halves]
    assert run(small_net(), named, epochs=1).last.loss == history.last.loss


def test_bytes_are_scaled(small_net: Build, few: Pair) -> None:
    as_bytes = (few[0] * 255).round().byte()
    nets = [small_net(), small_net()]
    run(nets[0], [(as_bytes, few[1])], epochs=1)
    run(nets[1], [(as_bytes.float() / 255, few[1])], epochs=1)
    assert torch.equal(weights(nets[0]), weights(nets[1]))


class Sized(IterableDataset):
    """Samples one after the other, and how many."""

    def __init__(self, data: Pair) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data[1])

    def __iter__(self) -> Iterator[Pair]:
        return zip(*self.data, strict=True)


def test_batches_may_be_mappings_numbered_or_of_an_iterable_data_set(
    small_net: Build, few: Pair
) -> None:
    x, y = few
    batches = list(zip(x.split(48), y.split(48), strict=True))
    numbers = torch.arange(200).split(48)
    want = small_net()
    run(want, batches, epochs=1)
    for data in (
        [{"image": a, "label": b} for a, b in batches],
        [
            {"index": n, "pixel_values": a, "labels": b}
            for (a, b), n in zip(batches, numbers, strict=True)
        ],
        [(a, b, n) for (a, b), n in zip(batches, numbers, strict=True)],
        DataLoader(TensorDataset(x, y, torch.arange(200)), batch_size=48),
        DataLoader(Sized(few), batch_size=48),
    ):
        net = small_net()
        run(net, data, epochs=1)
        assert torch.equal(weights(net), weights(want))


class TestShuffling:
    def test_the_order_is_of_the_seed_and_leaves_no_trace(
        self, small_net: Build, few: Pair
    ) -> None:
        nets = [small_net(), small_net(), small_net()]
        state = torch.get_rng_state()
        run(nets[0], shuffling(few), epochs=2)
        assert torch.equal(state, torch.get_rng_state())
        torch.rand(3)
        run(nets[1], shuffling(few), epochs=2)
        train(nets[2], shuffling(few), epochs=2, seed=4, progress=False)
        assert torch.equal(weights(nets[0]), weights(nets[1]))
        assert not torch.equal(weights(nets[0]), weights(nets[2]))

    def test_resumed_is_bit_identical(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        def stop(model: nn.Module, record: Epoch) -> None:
            if record.epoch == 1:
                raise StopTraining("later")

        options: dict[str, Any] = {
            "epochs": 4, "method": "pgd", "method_options": {"eps": 0.1, "steps": 2},
            "augment": "crop",
            "evaluation": Evaluation(shuffling(few), detector=OverfittingDetector(0.1, n=40)),
        }  # fmt: skip
        whole, net = small_net(dropout=0.3), small_net(dropout=0.3)
        want = run(whole, shuffling(few), **options)
        run(net, shuffling(few), on_epoch=stop, saving=Saving(tmp_path), **options)
        torch.rand(7)
        got = run(net, shuffling(few), saving=Saving(tmp_path, resume=True), **options)
        assert torch.equal(weights(net), weights(whole))
        figures = [
            [(e.loss, e.clean_accuracy, e.pgd_accuracy) for e in h.epochs] for h in (got, want)
        ]
        assert figures[0] == figures[1]

    def test_other_data_are_refused(self, small_net: Build, few: Pair, tmp_path: Path) -> None:
        run(small_net(), shuffling(few), epochs=1, saving=Saving(tmp_path))
        with pytest.raises(ValueError, match=r"data: '7 batches of a DataLoader, .*' there, '200 "):
            run(small_net(), few, epochs=1, saving=Saving(tmp_path, resume=True))


def test_evaluation_is_that_of_the_images_in_memory(small_net: Build, few: Pair) -> None:
    net, attack = small_net(), PGD(0.1, steps=2, random_start=False)
    state = torch.get_rng_state()
    got = evaluate(net, shuffling(few), attack)
    assert got == evaluate(net, few, attack)
    assert got.n == 200
    assert torch.equal(state, torch.get_rng_state())


class Endless:
    """More batches than it says."""

    def __init__(self, batch: Pair) -> None:
        self.batch = batch

    def __len__(self) -> int:
        return 2

    def __iter__(self) -> Iterator[Pair]:
        while True:
            yield self.batch


class Once:
    """Batches that are gone after the first time, of a length that says more."""

    def __init__(self, *batches: Pair, length: int) -> None:
        self.batches, self.length = iter(batches), length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[Pair]:
        return self.batches


class Unnumbered(IterableDataset):
    def __init__(self, data: Pair) -> None:
        self.data = data

    def __iter__(self) -> Iterator[Pair]:
        return zip(*self.data, strict=True)


class TestBadInput:
    def test_what_is_no_data(self, small_net: Build, few: Pair) -> None:
        x, y = few
        for data, message in (
            (7, r"train_data must have \.images and \.labels .* got int"),
            ({"x": x, "y": y}, r"train_data must have \.images and \.labels .* got dict"),
            (iter([few]), "train_data must be an iterable that begins anew each time"),
            (DataLoader(Unnumbered(few)), "train_data must have a length, .* got a DataLoader"),
            ([x], r"train_data: batch 0 must be a pair of tensors .* got Tensor and NoneType"),
            ([({"x": x}, y)], r"train_data: batch 0 must be a pair .* got dict and Tensor"),
            ([(x, y, x)], "train_data: batch 0 must be .* a third part of another kind"),
            ([{"a": x, "b": x, "y": y}], r"a mapping of \['a', 'b', 'y'\]"),
            ([{"a": x}], r"train_data: batch 0 must have images and labels .*mapping of \['a'\]"),
            ([(x, y.float())], r"train_data: batch 0: labels must be integers, got torch\.float32"),
            ([(x.long(), y)], "train_data: batch 0: images must be uint8 or floating point"),
        ):
            with pytest.raises(TypeError, match=message):
                run(small_net(), data, epochs=1)

    def test_values(self, small_net: Build, few: Pair) -> None:
        x, y = few
        for data, message in (
            ([], "train_data gave no batch"),
            ([(x, y[:3])], "train_data: batch 0 must hold at least one image and one label for"),
            ([(x, y + 1)], r"y must lie in \[0, 9\], .* got labels in \[1, 10\]"),
            ([few, (x, y + 1)], r"y must lie in \[0, 9\], .* got labels in \[1, 10\]"),
            (Endless(few), "train_data gave more batches than its length, 2"),
            (Once(few, few, few, length=5), "train_data gave fewer batches than its length, 5: 1"),
        ):
            with pytest.raises(ValueError, match=message):
                run(small_net(), data, epochs=1)


def test_fewer_batches_than_the_length_are_no_evaluation(small_net: Build, few: Pair) -> None:
    with pytest.raises(ValueError, match="data gave fewer batches than its length, 3: 1"):
        evaluate(small_net(), Once(few, length=3))


def test_a_last_batch_of_one_sample_is_named(few: Pair) -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 10))
    data = few[0][:65], few[1][:65]
    with pytest.raises(ValueError, match=r"batch 2 of epoch 0 .*one sample.*drop_last=True"):
        run(net, shuffling(data), epochs=1)
    run(net, shuffling(data, drop_last=True), epochs=1)
    run(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), shuffling(data), epochs=1)


@pytest.mark.parametrize("method", ["standard", "free"])
@pytest.mark.parametrize("form", [lambda data: data, lambda data: [data], shuffling])
def test_no_gradient_reaches_the_data(
    small_net: Build, few: Pair, method: str, form: Callable[[Pair], Any]
) -> None:
    images = few[0].clone().requires_grad_()
    soft = torch.eye(10)[few[1]].requires_grad_()
    made = 1.0 * images  # by layers of the caller's, which a second backward pass would not find
    net, plain = small_net(), small_net()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run(net, form((made, soft)), epochs=1, method=method)
        evaluate(net, form((made, soft)), PGD(0.1, steps=1))
    run(plain, form((few[0], soft.detach())), epochs=1, method=method)
    assert images.grad is None
    assert soft.grad is None
    assert torch.equal(weights(net), weights(plain))
