"""Channels last while training and evaluating, unseen by whoever calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast import models
from repsim_fast._core import memory_format
from repsim_fast.attacks import PGD
from repsim_fast.training import Evaluation, Optimisation, Saving, evaluate, methods, train

LAST = torch.channels_last


@pytest.fixture
def images() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(24, 3, 8, 8, generator=generator)
    return x, torch.arange(24) % 4


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Says whether channels last are known to be faster."""

    def say(known: bool) -> None:
        monkeypatch.setattr(memory_format, "_is_faster", lambda *_: known)

    say(True)
    return say


class Watched(nn.Module):
    """Notes whether the convolution's maps have their channels last, of whole batches only: a model
    is tried on two images before its layout is chosen."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.linear = nn.Linear(8, 4)
        self.last: set[bool] = set()
        torch.manual_seed(0)
        nn.init.normal_(self.conv.weight)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.conv(x)
        if len(x) > 2:
            self.last.add(maps.is_contiguous(memory_format=LAST))
        logits: Tensor = self.linear(maps.amax((2, 3)))
        return logits


def trained(images: Any, method: str, **options: Any) -> tuple[nn.Module, float]:
    net = models.build("wrn-10-1", num_classes=4, seed=0)
    settings = {"eps": 0.1, "steps": 2} if method in ("pgd", "trades", "mart") else {}
    history = train(
        net, images, method=method, method_options=settings, epochs=1, batch_size=12, lr=0.01,
        progress=False, **options,
    )  # fmt: skip
    return net, history.last.loss


@pytest.mark.parametrize("method", ["standard", "noise", "gradalign", "free"])
def test_changes_nothing_but_rounding(
    method: str, images: Any, faster: Callable[[bool], None]
) -> None:
    losses = []
    for known in (False, True):
        faster(known)
        net, loss = trained(images, method)
        assert all(p.is_contiguous() for p in net.parameters())
        assert all(p.grad is None or p.grad.is_contiguous() for p in net.parameters())
        losses.append(loss)
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_on_epoch_and_checkpoints_see_the_usual_strides(
    images: Any, faster: Callable[[bool], None], tmp_path: Path
) -> None:
    net, seen = Watched(), []
    train(
        net, images, epochs=2, progress=False, saving=Saving(tmp_path),
        on_epoch=lambda model, _: seen.append(model.conv.weight.view(-1).shape) and None,
    )  # fmt: skip
    assert len(seen) == 2


def test_a_resumed_training_has_the_same_bits(
    images: Any, faster: Callable[[bool], None], tmp_path: Path
) -> None:
    def run(epochs: int, **options: Any) -> nn.Module:
        net = models.build("wrn-10-1", num_classes=4, seed=0)
        train(
            net, images, method="n-fgsm", epochs=2, batch_size=12, progress=False,
            optimisation=Optimisation(ema=0.9), schedule="constant", **options,
            on_epoch=(lambda *_: exit_()) if epochs == 1 else None,
        )  # fmt: skip
        return net

    def exit_() -> None:
        raise KeyboardInterrupt

    whole = run(2)
    with pytest.raises(KeyboardInterrupt):
        run(1, saving=Saving(tmp_path))
    resumed = run(2, saving=Saving(tmp_path, resume=True))
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def rows(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """An attack that takes it that gradients have the strides of images, as some do."""
    x = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(x), y), x)
    return (x + 0.01 * gradient.view(len(x), -1).sign().view_as(x)).detach()


def test_attacks_of_others_see_the_usual_strides(
    images: Any, faster: Callable[[bool], None]
) -> None:
    net = Watched()
    train(net, images, method=methods.adversarial(rows), epochs=1, progress=False)
    evaluate(net, images, rows)
    assert net.last == {False}


def test_where_the_channels_are_last(images: Any, faster: Callable[[bool], None]) -> None:
    net = Watched()
    evaluate(net, images, PGD(0.1), on_batch=lambda adv, _: None)
    train(net, images, method=methods.adversarial(PGD(0.1)), epochs=1, progress=False)
    assert True in net.last
    net.last.clear()
    net.to(memory_format=LAST)
    evaluation = Evaluation(images, PGD(0.1))
    train(net, images, method="pgd", epochs=1, evaluation=evaluation, progress=False)
    assert net.last == {True}
