"""Settings of a method that change in the course of a training."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import Execution
from repsim_fast.training import Epoch, Ramp, Saving, StopTraining, methods, train
from repsim_fast.training.methods import Progress, TrainingBatch

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]


def at(few: Pair, fraction: float) -> TrainingBatch:
    generator = torch.Generator().manual_seed(0)
    return TrainingBatch(few[0][:20], few[1][:20], generator, Progress(fraction=fraction))


def test_values() -> None:
    ramp = Ramp(0.1, 0.3, begin=0.2, end=0.6)
    assert [ramp.at(t) for t in (0.0, 0.2, 0.4, 0.6, 1.0)] == pytest.approx(
        [0.1, 0.1, 0.2, 0.3, 0.3]
    )
    assert ramp.at(0.6) == 0.3
    assert [Ramp(1, 4, whole=True).at(t) for t in (0.0, 0.5, 0.6, 1.0)] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "name", ["pgd", "trades", "mart", "fgsm", "rs-fgsm", "n-fgsm", "gradalign"]
)
@pytest.mark.parametrize("fraction", [0.0, 0.2, 0.7])
def test_a_step_is_that_of_the_method_with_the_present_value(
    small_net: Build, few: Pair, name: str, fraction: float
) -> None:
    eps = Ramp(0.02, 0.2, end=0.4)
    method, fixed = methods.build(name, eps=eps), methods.build(name, eps=eps.at(fraction))
    answers = []
    for one in (method, fixed):
        net, batch = small_net(), at(few, fraction)
        perturbed = one.perturb(net, batch)
        answers.append((perturbed, one.loss(net, batch, perturbed)[0]))
    assert torch.equal(answers[0][0], answers[1][0])
    assert torch.equal(answers[0][1], answers[1][1])
    assert method.eps == 0.2
    assert method.name == name


def test_the_loss_has_its_ramps_too(small_net: Build, few: Pair) -> None:
    method = methods.build("trades", eps=0.1, steps=2, beta=Ramp(0, 6))
    losses = []
    for fraction in (0.0, 0.5, 1.0):
        net, batch = small_net().double().eval(), at((few[0].double(), few[1]), fraction)
        losses.append(method.loss(net, batch, batch.x.flip(3))[0].item())
    assert losses[1] - losses[0] == pytest.approx(losses[2] - losses[1], rel=1e-4)
    assert losses[1] > losses[0]


def test_resumed_is_bit_identical(small_net: Build, few: Pair, tmp_path: Path) -> None:
    def stop(model: nn.Module, record: Epoch) -> None:
        if record.epoch == 0:
            raise StopTraining("later")

    options: dict[str, Any] = {
        "epochs": 3, "method": "pgd", "batch_size": 64, "progress": False,
        "method_options": {"eps": Ramp(0, 0.2, end=0.5), "steps": Ramp(1, 3, whole=True)},
    }  # fmt: skip
    whole, net, fixed = small_net(), small_net(), small_net()
    train(whole, few, **options)
    train(net, few, saving=Saving(tmp_path), on_epoch=stop, **options)
    train(net, few, saving=Saving(tmp_path, resume=True), **options)
    assert torch.equal(net[0].weight, whole[0].weight)
    train(fixed, few, **{**options, "method_options": {"eps": 0.2, "steps": 3}})
    assert not torch.equal(fixed[0].weight, whole[0].weight)
    options["method_options"] = {"eps": Ramp(0, 0.2, end=0.6), "steps": Ramp(1, 3, whole=True)}
    with pytest.raises(ValueError, match=r"end=0\.5.* there.*end=0\.6.* here"):
        train(net, few, saving=Saving(tmp_path, resume=True), **options)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("free", {"eps": Ramp(0, 0.1)}, "'free' carries its perturbation on: it takes no Ramp"),
        (
            "pgd",
            {"steps": Ramp(1, 10)},
            r"steps is a whole number: give Ramp\(\.\.\., whole=True\)",
        ),
        ("pgd", {"steps": Ramp(0, 10, whole=True)}, "steps and restarts must be at least 1"),
        ("pgd", {"weight": Ramp(0, 1)}, "'pgd'.*weight"),
        (
            "pgd",
            {"eps": Ramp(0, 0.1), "execution": Execution(cuda_graph=True)},
            "no cuda_graph with a Ramp",
        ),
    ],
)
def test_bad_settings(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.build(name, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"begin": 0.5, "end": 0.5}, "begin and end must be shares"),
        ({"end": 1.5}, "begin and end must be shares"),
        ({"stop": float("nan")}, "stop must be finite"),
    ],
)
def test_bad_ramps(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Ramp(**{"start": 0.0, "stop": 1.0, **options})
