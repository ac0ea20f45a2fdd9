"""Batch norms that stay as they are while the rest is trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from repsim_fast.attacks import PGD
from repsim_fast.training import Evaluation, Optimisation, Saving, StopTraining, train

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]
# The attack passes that would change the averages of a batch norm in training mode.
ATTACKS: list[dict[str, Any]] = [
    {"method": "standard"},
    {"method": "fgsm", "method_options": {"model_mode": "train", "update_statistics": True}},
    {"method": "pgd", "method_options": {"steps": 2, "model_mode": "train"}},
    {"method": "trades", "method_options": {"steps": 2}},
    {"method": "free", "method_options": {"replays": 2}},
]


@pytest.fixture(scope="module")
def pretrained(small_net: Build, few: Pair) -> Callable[[], nn.Module]:
    """Builds a network whose running averages and affine parameters are its own."""
    first = small_net()
    train(first, few, epochs=1, progress=False)

    def build(**options: Any) -> nn.Module:
        net = small_net(**options)
        net.load_state_dict(first.state_dict())
        return net

    return build


def held(net: nn.Module, part: str) -> dict[str, Tensor]:
    norms = [(name, m) for name, m in net.named_modules() if isinstance(m, nn.BatchNorm2d)]
    values: dict[str, Tensor] = {}
    for name, norm in norms:
        if part in ("statistics", "both"):
            values |= {f"{name}.{key}": value.clone() for key, value in norm.named_buffers()}
        if part in ("affine", "both"):
            values |= {f"{name}.{key}": p.detach().clone() for key, p in norm.named_parameters()}
    assert values
    return values


@pytest.mark.parametrize("part", ["statistics", "affine", "both"])
@pytest.mark.parametrize("options", ATTACKS, ids=[o["method"] for o in ATTACKS])
@pytest.mark.parametrize("how", [{}, {"awp": 0.01, "ema": 0.9}, {"optimizer": "sam"}])
def test_stays_through_training_and_attacks(
    part: str, options: dict[str, Any], how: dict[str, Any], pretrained: Build, few: Pair
) -> None:
    net, few = pretrained().train(), (few[0][:80], few[1][:80])
    net[4].eval()
    before, all_before = held(net, part), held(net, "both")
    flags = [(m.training, p.requires_grad) for m in net.modules() for p in m.parameters()]
    train(
        net, few, epochs=2, progress=False, evaluation=Evaluation(few, PGD(0.1, steps=1)),
        optimisation=Optimisation(**how, freeze_batch_norm=part), **options,
    )  # fmt: skip
    for name, value in held(net, part).items():
        assert torch.equal(value, before[name]), name
    moved = [n for n, v in held(net, "both").items() if not torch.equal(v, all_before[n])]
    assert bool(moved) == (part != "both")
    assert not torch.equal(net[0].weight, pretrained()[0].weight)
    assert flags == [(m.training, p.requires_grad) for m in net.modules() for p in m.parameters()]


@pytest.mark.parametrize("options", ATTACKS, ids=[o["method"] for o in ATTACKS])
def test_attacks_see_the_norms_as_training_does(
    options: dict[str, Any], pretrained: Build, few: Pair
) -> None:
    net, modes = pretrained(), set()
    net[1].register_forward_hook(lambda module, inputs, output: modes.add(module.training))
    how = Optimisation(freeze_batch_norm="statistics")
    train(net, few, epochs=1, optimisation=how, progress=False, **options)
    assert modes == {False}


def test_running_averages_normalise(pretrained: Build, few: Pair) -> None:
    want = cross_entropy(pretrained().eval()(few[0]), few[1]).item()
    history = train(
        pretrained(), [few], epochs=1, progress=False,
        optimisation=Optimisation(freeze_batch_norm="statistics"),
    )  # fmt: skip
    assert history.last.loss == pytest.approx(want, rel=1e-5)


def test_dropout_still_trains(pretrained: Build, few: Pair) -> None:
    seen = []
    net = pretrained(dropout=0.5)
    net[7].register_forward_hook(lambda module, inputs, output: seen.append(module.training))
    how = Optimisation(freeze_batch_norm="both")
    train(net, [few], epochs=1, optimisation=how, progress=False)
    assert any(seen)


@pytest.mark.parametrize("part", ["statistics", "affine", "both"])
def test_resume_is_exact(part: str, pretrained: Build, few: Pair, tmp_path: Path) -> None:
    def stop(_: nn.Module, record: Any) -> None:
        if record.epoch == 0:
            raise StopTraining("for now")

    options: dict[str, Any] = {
        "epochs": 2, "progress": False, "method": "fgsm",
        "method_options": {"model_mode": "train", "update_statistics": True},
        "optimisation": Optimisation("adam", freeze_batch_norm=part),
    }  # fmt: skip
    whole, resumed = pretrained(), pretrained()
    train(whole, few, lr=1e-3, **options)
    saving = Saving(tmp_path, resume=True)
    train(pretrained(), few, lr=1e-3, saving=saving, on_epoch=stop, **options)
    train(resumed, few, lr=1e-3, saving=saving, **options)
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    with pytest.raises(ValueError, match=rf"freeze_batch_norm: '{part}' there, None here"):
        train(
            pretrained(), few, lr=1e-3, saving=saving,
            **options | {"optimisation": Optimisation("adam")},
        )  # fmt: skip


def test_an_error_leaves_no_trace(pretrained: Build, few: Pair) -> None:
    net = pretrained()

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    how = Optimisation(freeze_batch_norm="both")
    with pytest.raises(RuntimeError, match="disk full"):
        train(net, [few], epochs=1, optimisation=how, on_epoch=fail, progress=False)
    before = held(net, "both")
    train(net, [few], epochs=1, progress=False)
    assert not any(torch.equal(value, before[name]) for name, value in held(net, "both").items())


def test_bad_input(few: Pair) -> None:
    with pytest.raises(ValueError, match=r"freeze_batch_norm: expected one of 'statistics'.*'all'"):
        Optimisation(freeze_batch_norm="all")
    linear = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    without = nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), linear)
    alone = nn.Sequential(nn.BatchNorm2d(1), linear.requires_grad_(False))
    for net, part, message in (
        (linear.requires_grad_(), "both", "the model has no batch norm"),
        (without, "statistics", "must keep running averages, '0' has none"),
        (alone, "affine", "leaves no parameter to train"),
    ):
        linear.requires_grad_(net is not alone)
        with pytest.raises(ValueError, match=f"freeze_batch_norm='{part}'.*{message}"):
            train(
                net, [few], optimisation=Optimisation(freeze_batch_norm=part), progress=False
            )  # fmt: skip


def test_a_compiled_model_is_frozen_too(pretrained: Build, few: Pair) -> None:
    net = pretrained()
    compiled = torch.compile(net, backend="eager")
    compiled.train()(few[0])  # compiled in training mode first
    before = held(net, "statistics")
    how = Optimisation(freeze_batch_norm="statistics")
    train(compiled, few, epochs=1, optimisation=how, progress=False)
    assert all(torch.equal(v, before[name]) for name, v in held(net, "statistics").items())


def test_norms_of_another_class(few: Pair) -> None:
    class Own(nn.modules.batchnorm._BatchNorm):
        def _check_input_dim(self, input: Tensor) -> None:
            pass

    net = nn.Sequential(nn.Conv2d(1, 4, 3), Own(4), nn.Flatten(), nn.Linear(144, 10))
    before = [net[1].running_mean.clone(), net[1].weight.detach().clone()]
    how = Optimisation(freeze_batch_norm="both")
    train(net, few, epochs=1, optimisation=how, progress=False)
    assert torch.equal(net[1].running_mean, before[0])
    assert torch.equal(net[1].weight, before[1])
