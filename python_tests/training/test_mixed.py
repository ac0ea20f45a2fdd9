"""Two streams of training images at a fixed ratio."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from repsim_fast._core.processes import Processes
from repsim_fast.data import mixed
from repsim_fast.training import Epoch, Evaluation, Saving, StopTraining, train

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]
CPU = torch.device("cpu")


def numbered(n: int, first: int) -> Pair:
    """Images that carry their number, labels that tell the streams apart."""
    images = (first + torch.arange(n)).float().div(1000).view(n, 1, 1, 1)
    return images, torch.full((n,), first // 500)


def epoch(data: Any, number: int = 0, seed: int = 0, group: Processes | None = None) -> list[Any]:
    return list(data.epoch(number, 16, CPU, seed, group or Processes()))


def loader(data: Pair, size: int) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*data), batch_size=size)


@pytest.mark.parametrize("loads", [False, True])
def test_every_batch_holds_the_share(loads: bool) -> None:
    second = numbered(30, 500)
    data = mixed(numbered(60, 0), loader(second, 7) if loads else second, share=0.25)
    batches = epoch(data)
    assert len(batches) == data.steps(16, Processes()) == 5
    assert [(int((y == 0).sum()), int((y == 1).sum())) for _, y, _ in batches] == [(12, 4)] * 5
    assert all(weight == 1.0 for *_, weight in batches)
    drawn = torch.cat([x.flatten().mul(1000).round().int() for x, _, _ in batches])
    firsts, seconds = drawn[drawn < 500], drawn[drawn >= 500]
    assert sorted(firsts.tolist()) == list(range(60))
    assert len(seconds.unique()) == 20
    if loads:
        assert seconds.tolist() == list(range(500, 520))


def test_a_short_second_stream_begins_anew() -> None:
    data = mixed(numbered(64, 0), numbered(10, 500), share=0.5)
    batches = epoch(data)
    drawn = torch.cat([x[y == 1].flatten().mul(1000).round().int() for x, y, _ in batches])
    assert len(drawn) == 64
    assert set(torch.bincount(drawn - 500, minlength=10).tolist()) == {6, 7}


def test_a_loader_comes_first() -> None:
    data = mixed(loader(numbered(20, 0), 8), numbered(30, 500), share=0.5)
    sizes = [
        (int((y == 0).sum()), int((y == 1).sum()))
        for _, y, _ in data.epoch(0, 16, CPU, 0, Processes())
    ]
    assert sizes == [(8, 8), (8, 8), (4, 4)]


def test_processes_share_what_one_would_have() -> None:
    data = mixed(numbered(61, 0), numbered(30, 500), share=0.3)
    whole = epoch(data)
    parts = [epoch(data, group=Processes(rank, 2)) for rank in range(2)]
    assert len(whole) == len(parts[0]) == len(parts[1])
    for (x, _, _), (x0, y0, w0), (x1, y1, w1) in zip(whole, *parts, strict=True):
        assert sorted(torch.cat((x0, x1)).flatten().tolist()) == sorted(x.flatten().tolist())
        assert w0 + w1 == pytest.approx(1.0)
        assert w0 == pytest.approx(len(y0) / (len(y0) + len(y1)))


def test_orders_follow_from_the_seed() -> None:
    data = mixed(numbered(60, 0), numbered(30, 500))
    one, same, other = (torch.cat([x for x, *_ in epoch(data, seed=s)]) for s in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_resumed_is_bit_identical(small_net: Build, few: Pair, tmp_path: Path) -> None:
    def stop(model: nn.Module, record: Epoch) -> None:
        if record.epoch == 0:
            raise StopTraining("later")

    x, y = few
    data = mixed((x[:120], y[:120]), (x[120:], y[120:]), share=0.4)
    options: dict[str, Any] = {
        "epochs": 3, "batch_size": 32, "augment": "crop", "progress": False,
        "evaluation": Evaluation(validation=0.2),
    }  # fmt: skip
    whole, net = small_net(), small_net()
    train(whole, data, **options)
    train(net, data, saving=Saving(tmp_path), on_epoch=stop, **options)
    history = train(net, data, saving=Saving(tmp_path, resume=True), **options)
    assert torch.equal(net[0].weight, whole[0].weight)
    assert history.last.clean_accuracy is not None
    other = mixed((x[:120], y[:120]), (x[120:], y[120:]), share=0.3)
    with pytest.raises(ValueError, match=r"share 0\.4' there.*share 0\.3' here"):
        train(net, other, saving=Saving(tmp_path, resume=True), **options)


def test_bad_input(small_net: Build, few: Pair) -> None:
    x, y = few
    for share in (0.0, 1.0, -0.1):
        with pytest.raises(ValueError, match=r"share must lie in \(0, 1\)"):
            mixed(few, few, share=share)
    with pytest.raises(
        ValueError,
        match=r"one kind, got \(1, 8, 8\) float32 in first .* and \(3, 8, 8\) float32 in second",
    ):
        mixed(few, (x.expand(-1, 3, -1, -1), y))
    with pytest.raises(ValueError, match=r"float32 in first .* float64 in second"):
        mixed(few, loader((x.double(), y), 10))
    with pytest.raises(TypeError, match="second must have"):
        mixed(few, 7)
    with pytest.raises(TypeError, match="mixed already"):
        mixed(mixed(few, few), few)
    with pytest.raises(ValueError, match="batch_size: 4 images are too few"):
        train(small_net(), mixed(few, few, share=0.01), batch_size=4, epochs=1, progress=False)
    with pytest.raises(ValueError, match="the model's classes, got labels in"):
        train(small_net(), mixed(few, (x, y + 3)), epochs=1, progress=False)
    held = Evaluation(validation=0.1)
    with pytest.raises(TypeError, match="got a first stream of batches"):
        train(small_net(), mixed(loader(few, 10), few), epochs=1, evaluation=held, progress=False)


@pytest.mark.parametrize("softer", ["first", "second"])
def test_soft_labels_in_one_stream_only(softer: str, small_net: Build, few: Pair) -> None:
    images, classes = few
    soft = nn.functional.one_hot(classes, 10).float()
    one, other = (images[:100], classes[:100]), (images[100:], classes[100:])
    nets = []
    for first, second in (
        (one, other),
        ((one[0], soft[:100]), other) if softer == "first" else (one, (other[0], soft[100:])),
    ):
        nets.append(small_net())
        train(nets[-1], mixed(first, second), epochs=1, batch_size=50, progress=False)
    assert torch.allclose(nets[0][8].weight, nets[1][8].weight, rtol=1e-4, atol=1e-5)
