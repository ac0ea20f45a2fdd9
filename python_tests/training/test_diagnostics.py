"""Figures of an epoch beside accuracies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.analysis.curvature import input_hessian_top
from repsim_fast.analysis.selectivity import class_selectivity
from repsim_fast.attacks import FGSM, PGD
from repsim_fast.training import Diagnostics, Epoch, Evaluation, StopTraining, train

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]


def test_figures_are_those_written_out(small_net: Build, few: Pair) -> None:
    net, (x, y) = small_net().eval(), (few[0][:40], few[1][:40])
    figures = Diagnostics(x, y, eps=0.1, batch_size=15).measure(net)
    assert sorted(figures) == [
        "gradient_cosine", "input_curvature", "perturbation_cosine", "selectivity"
    ]  # fmt: skip
    hidden = net[2](net[1](net[0](x)))
    deeper = net[5](net[4](net[3](hidden)))
    index = torch.stack([class_selectivity(units, y).mean() for units in (hidden, deeper)])
    assert figures["selectivity"] == pytest.approx(index.mean().item(), rel=1e-5)
    tops = [input_hessian_top(net, a, b) for a, b in zip(x.split(15), y.split(15), strict=True)]
    assert figures["input_curvature"] == pytest.approx(torch.cat(tops).mean().item(), rel=1e-4)

    def gradient(images: Tensor) -> Tensor:
        images = images.clone().requires_grad_()
        loss = nn.functional.cross_entropy(net(images), y, reduction="sum")
        return torch.autograd.grad(loss, images)[0].flatten(1)

    generator = torch.Generator().manual_seed(0)
    noise = torch.cat([torch.rand(a.shape, generator=generator) for a in x.split(15)])
    cosine = nn.functional.cosine_similarity(gradient(x), gradient(x + 0.1 * (2 * noise - 1)))
    assert figures["gradient_cosine"] == pytest.approx(cosine.mean().item(), abs=1e-4)
    pgd = PGD(0.1, steps=10, step_size=0.025, seed=0)
    deltas = [
        (FGSM(0.1)(net, a, b) - a, pgd(net, a, b) - a)
        for a, b in zip(x.split(15), y.split(15), strict=True)
    ]
    one, many = (torch.cat(parts).flatten(1) for parts in zip(*deltas, strict=True))
    want = nn.functional.cosine_similarity(one, many).mean()
    assert figures["perturbation_cosine"] == pytest.approx(want.item(), abs=1e-6)


def test_training_does_not_notice(small_net: Build, few: Pair) -> None:
    options: dict[str, Any] = {"epochs": 2, "batch_size": 64, "progress": False, "method": "pgd"}
    quiet, watched = small_net(dropout=0.3), small_net(dropout=0.3)
    state = torch.get_rng_state()
    train(quiet, few, **options)
    history = train(watched, few, on_epoch=Diagnostics(*few, eps=0.1, every=2), **options)
    assert torch.equal(state, torch.get_rng_state())
    for (name, value), other in zip(
        quiet.state_dict().items(), watched.state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    assert history.epochs[0].figures == {}
    assert len(history.last.figures) == 4


def test_measures_the_epochs_that_are_evaluated(small_net: Build, few: Pair) -> None:
    watch = Diagnostics(*few, curvature=False, every=None)
    options: dict[str, Any] = {"epochs": 3, "progress": False, "on_epoch": watch}
    history = train(small_net(), few, evaluation=Evaluation(few, every=2), **options)
    assert [len(epoch.figures) for epoch in history.epochs] == [0, 1, 1]
    assert not train(small_net(), few, **options).last.figures


def test_goes_with_the_callers_own(small_net: Build, few: Pair) -> None:
    def stop(model: nn.Module, record: Epoch) -> None:
        raise StopTraining("enough", {"mine": 1.0})

    options: dict[str, Any] = {"epochs": 2, "progress": False}
    watch = Diagnostics(*few, curvature=False, then=stop)
    history = train(small_net(), few, on_epoch=watch, **options)
    assert history.stopped == "enough"
    assert sorted(history.last.figures) == ["mine", "selectivity"]
    clash = Diagnostics(*few, curvature=False, then=lambda *_: {"selectivity": 1.0})
    with pytest.raises(RuntimeError, match="have a figure 'selectivity' already"):
        train(small_net(), few, on_epoch=clash, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, "eps must be positive or None"),
        ({"every": 0}, "batch_size and every must be at least 1"),
        ({"eps": 0.1, "outside": "pull"}, "outside: expected one of"),
    ],
)
def test_bad_settings(few: Pair, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Diagnostics(*few, **options)
    with pytest.raises(ValueError, match="images and labels must be as many"):
        Diagnostics(few[0], few[1][:3])


def test_images_and_labels_that_have_no_such_figures(few: Pair) -> None:
    x, y = few[0][:4], torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match="labels must be of two classes at least"):
        Diagnostics(x, y)
    with pytest.raises(TypeError, match="images must be floating point"):
        Diagnostics((x * 255).byte(), few[1][:4])
    Diagnostics(x, y, selectivity=False)
