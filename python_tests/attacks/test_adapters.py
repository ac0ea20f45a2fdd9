"""Attacks of other packages fit where ours fit."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from repsim_fast._core.memory_format import is_ours
from repsim_fast.attacks import PGD, adapt
from repsim_fast.training import Evaluation, evaluate, train

EPS = 8 / 255


def careless(model: nn.Module) -> functools.partial[Tensor]:
    """An attack with the common faults: weight gradients, training mode, global seed."""

    def attack(x: Tensor, y: Tensor) -> Tensor:
        torch.manual_seed(0)
        x.requires_grad_()
        nn.functional.cross_entropy(model(x), y).backward()
        model.train()
        model(x)
        return (x + EPS * x.grad.sign()).clamp(0, 1)

    return attack


def test_a_careless_attack_leaves_no_trace(
    model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    modes, state = [m.training for m in model.modules()], torch.get_rng_state()
    with torch.no_grad():
        adv = adapt(careless)(model, images, labels)
    assert not adv.requires_grad
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
    assert modes == [m.training for m in model.modules()]
    assert torch.equal(state, torch.get_rng_state())


def test_torchattacks_gives_the_same_iterates(
    model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    package = pytest.importorskip("torchattacks", reason="torchattacks is an optional peer")
    theirs = adapt(
        lambda net: package.PGD(net, eps=EPS, alpha=EPS / 4, steps=5, random_start=False)
    )
    ours = PGD(EPS, step_size=EPS / 4, steps=5, random_start=False)
    # Theirs adds x + clamp(x_t - x): one rounding more.
    assert torch.allclose(
        theirs(model, images, labels), ours(model, images, labels), rtol=0, atol=1e-6
    )
    assert evaluate(model, (images, labels), theirs).robust is not None


def test_foolbox_gives_the_same_iterates(model: nn.Module, images: Tensor, labels: Tensor) -> None:
    package = pytest.importorskip("foolbox", reason="foolbox is an optional peer")
    linf = package.attacks.LinfPGD(abs_stepsize=EPS / 4, steps=5, random_start=False)
    theirs = adapt(
        lambda net: lambda x, y: linf.run(package.PyTorchModel(net, (0, 1)), x, y, epsilon=EPS)
    )
    ours = PGD(EPS, step_size=EPS / 4, steps=5, random_start=False)
    assert torch.allclose(
        theirs(model, images, labels), ours(model, images, labels), rtol=0, atol=1e-6
    )


def noisy(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    """An attack that draws from torch's global generators."""
    return lambda x, y: (x + EPS * torch.randn_like(x)).clamp(0, 1)


def test_a_copy_draws_what_the_original_would(
    model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    attack = adapt(noisy, seed=0)
    first = attack(model, images, labels)
    copied = copy.deepcopy(attack)
    second = attack(model, images, labels)
    assert not torch.equal(first, second)
    assert torch.equal(copied(model, images, labels), second)
    assert copied.make is noisy


def test_each_epoch_is_evaluated_on_the_same_draws(
    model: nn.Module, images: Tensor, labels: Tensor
) -> None:
    drawn: list[Tensor] = []

    def make(net: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
        def attack(x: Tensor, y: Tensor) -> Tensor:
            drawn.append(torch.rand(3))
            return x

        return attack

    attack = adapt(make, seed=0)
    evaluation = Evaluation((images, labels), attack)
    train(copy.deepcopy(model), (images, labels), epochs=2, evaluation=evaluation, progress=False)
    assert torch.equal(*drawn)


def test_code_of_others_meets_the_usual_strides() -> None:
    assert not is_ours(adapt(careless))
    assert repr(adapt(careless)) == f"adapt({careless!r}, model_mode='eval')"
