"""Adversarial training makes a network robust: real digits, real attack, seconds."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from repsim_fast.attacks import PGD
from repsim_fast.training import evaluate, train

EPS = 0.2

Pair = tuple[Tensor, Tensor]


@pytest.fixture(scope="module")
def digits() -> tuple[Pair, Pair]:
    torch.set_num_threads(1)
    held = load_digits()
    images = torch.tensor(held.images / 16, dtype=torch.float32).unsqueeze(1)
    labels = torch.tensor(held.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train_rows, test_rows = order[:1400], order[1400:]
    return (images[train_rows], labels[train_rows]), (images[test_rows], labels[test_rows])


def small_net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(32 * 16, 10),
        )


def test_pgd_training_is_robust_where_standard_training_collapses(
    digits: tuple[Pair, Pair],
) -> None:
    train_data, test_data = digits
    robust_accuracy = {}
    for method, options in (("standard", {}), ("pgd", {"eps": EPS, "steps": 5})):
        net = small_net()
        train(net, train_data, method=method, method_options=options, epochs=8, progress=False)
        figures = evaluate(net, test_data, PGD(EPS, steps=20, seed=0))
        assert figures.clean > 0.93, method
        robust_accuracy[method] = figures.robust
    assert robust_accuracy["standard"] < 0.1
    assert robust_accuracy["pgd"] > 0.5


def test_same_seed_same_weights_and_no_trace_in_the_global_state(
    digits: tuple[Pair, Pair], tmp_path: Path
) -> None:
    (images, labels), test_data = digits
    state = torch.get_rng_state()
    nets = [small_net(), small_net()]
    for number, net in enumerate(nets):
        net.eval()
        history = train(
            net,
            (images[:256], labels[:256]),
            method="pgd",
            method_options={"eps": EPS, "steps": 2},
            epochs=2,
            eval_data=test_data,
            eval_attack=PGD(EPS, steps=2, seed=0),
            log_path=tmp_path / f"{number}.jsonl",
            progress=False,
        )
        assert not net.training
        assert history.last.robust_accuracy is not None
        assert len((tmp_path / f"{number}.jsonl").read_text().splitlines()) == 2
    assert torch.equal(state, torch.get_rng_state())
    for first, second in zip(nets[0].parameters(), nets[1].parameters(), strict=True):
        assert torch.equal(first, second)


def test_a_diverging_training_says_so(digits: tuple[Pair, Pair]) -> None:
    with pytest.raises(ValueError, match="lower lr"):
        train(small_net(), digits[0], epochs=1, lr=1e30, progress=False)


def test_uint8_images_are_scaled(digits: tuple[Pair, Pair]) -> None:
    images, labels = digits[1]
    net = small_net()
    as_bytes = (images * 255).round().byte()
    assert evaluate(net, (as_bytes, labels)) == evaluate(net, (as_bytes.float() / 255, labels))


def test_nan_is_never_correct(digits: tuple[Pair, Pair]) -> None:
    images, labels = digits[1]

    def broken(x: Tensor) -> Tensor:
        logits = nn.functional.one_hot(labels[: len(x)], 10).float()
        return logits.masked_fill(logits > 0, torch.nan)  # argmax of NaN is its position

    assert evaluate(broken, (images, labels), batch_size=1000).clean == 0.0


def test_interval_contains_the_accuracy() -> None:
    def always_first(x: Tensor) -> Tensor:
        return torch.tensor([[1.0, 0.0]]).expand(len(x), 2)

    data = torch.rand(100, 1, 2, 2), (torch.arange(100) >= 90).long()
    figures = evaluate(always_first, data)
    low, high = figures.interval()
    assert figures.clean == 0.9
    assert low == pytest.approx(0.8256, abs=1e-3)  # Wilson's interval for 90 of 100
    assert high == pytest.approx(0.9448, abs=1e-3)
