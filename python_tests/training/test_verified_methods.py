"""Training for verified bounds: the loss of the papers, and what it is for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from repsim_fast import pruning
from repsim_fast.training import Epoch, Optimisation, Ramp, Saving, StopTraining, methods, train
from repsim_fast.training.methods import Progress, TrainingBatch
from repsim_fast.verification import verified_accuracy

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]


def dense(seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def worst_by_intervals(
    net: nn.Sequential, x: Tensor, y: Tensor, eps: float, least: Any = 0, most: Any = 1
) -> Tensor:
    """Gowal et al., equations 6 to 10, with the last layer and the difference as one."""
    _, first, _, last = (layer for layer in net)
    low, high = ((x + e).clamp(min=least).clamp(max=most).flatten(1) for e in (-eps, eps))
    middle = (low + high) / 2 @ first.weight.T + first.bias
    reach = (high - low) / 2 @ first.weight.abs().T
    low, high = (middle - reach).relu(), (middle + reach).relu()
    rows = last.weight[y][:, None] - last.weight
    shift = last.bias[y][:, None] - last.bias
    worst = rows.clamp(min=0) @ low[..., None] + rows.clamp(max=0) @ high[..., None]
    return -(worst.squeeze(2) + shift)


@pytest.mark.parametrize(
    ("fraction", "share"), [(0.0, 0.0), (0.2, 0.0), (0.4, 0.5), (0.6, 1.0), (0.9, 1.0)]
)
def test_the_loss_of_intervals_is_that_of_the_paper(
    few: Pair, fraction: float, share: float
) -> None:
    net, x, y = dense().double(), few[0][:20].double(), few[1][:20]
    method = methods.build("ibp", eps=0.1, kappa=0.3, begin=0.2, end=0.6)
    batch = TrainingBatch(x, y, torch.Generator(), Progress(fraction=fraction))
    loss, logits = method.loss(net, batch, method.perturb(net, batch))
    kappa = 1 - 0.7 * share
    worst = worst_by_intervals(net, x, y, 0.1 * share)
    want = kappa * cross_entropy(net(x), y) + (1 - kappa) * cross_entropy(worst, y)
    assert loss.item() == pytest.approx(want.item(), rel=1e-12)
    assert torch.equal(logits, net(x))
    assert net.training


@pytest.mark.parametrize("bounds", [(-1.5, 1.0), (torch.tensor([-1.1]), torch.tensor([1.3])), None])
def test_bounds_of_other_images(few: Pair, bounds: Any) -> None:
    net, x, y = dense().double(), 2 * few[0][:20].double() - 1, few[1][:20]
    batch = TrainingBatch(x, y, torch.Generator(), Progress(fraction=0.9))
    least, most = bounds or (-torch.inf, torch.inf)
    want = cross_entropy(worst_by_intervals(net, x, y, 0.3, least, most), y).item()
    for name in ("ibp", "crown-ibp"):
        method = methods.build(name, eps=0.3, kappa=0.0, bounds=bounds)
        loss, _ = method.loss(net, batch, method.perturb(net, batch))
        assert loss.item() == pytest.approx(want, rel=1e-6)


def test_linear_bounds_give_way_to_intervals(few: Pair) -> None:
    net, batch = dense().double(), (few[0][:20].double(), few[1][:20])

    def loss(name: str, fraction: float, **options: Any) -> float:
        method = methods.build(name, eps=Ramp(0.1, 0.1), kappa=Ramp(0, 0), **options)
        at = TrainingBatch(*batch, torch.Generator(), Progress(fraction=fraction))
        return method.loss(net, at, batch[0])[0].item()

    assert loss("crown-ibp", 0.0) < loss("crown-ibp", 0.25) < loss("crown-ibp", 0.5)
    assert loss("crown-ibp", 0.5) == loss("ibp", 0.5)
    assert loss("crown-ibp", 0.9, beta=1.0) == loss("crown-ibp", 0.0)


def test_the_graph_is_found_once_an_epoch(few: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    traced = Mock(wraps=torch.fx.symbolic_trace)
    monkeypatch.setattr("torch.fx.symbolic_trace", traced)
    options = {"eps": 0.1, "kappa": Ramp(0, 0)}
    train(
        dense(), few, method="crown-ibp", method_options=options, epochs=2, batch_size=16,
        progress=False,
    )  # fmt: skip
    assert len(few[0]) > 16
    assert traced.call_count == 2


def test_verified_accuracy_is_what_it_raises(digits: tuple[Pair, Pair], small_net: Build) -> None:
    held = (digits[1][0][:200], digits[1][1][:200])
    verified = {}
    for method in ("standard", "ibp", "crown-ibp"):
        net = small_net(width=4)
        train(
            net, digits[0], method=method, epochs=8, lr=5e-3, batch_size=64,
            method_options=None if method == "standard" else {"eps": 0.06},
            optimisation=Optimisation("adam", weight_decay=0), progress=False,
        )  # fmt: skip
        found = verified_accuracy(net, held, 0.05, method="crown-ibp")
        assert found.clean > 0.75, method
        verified[method] = found.verified
    for method in ("ibp", "crown-ibp"):
        assert verified[method] > 0.35, method
        assert verified[method] > verified["standard"] + 0.3, method


@pytest.mark.parametrize("name", ["ibp", "crown-ibp"])
@pytest.mark.parametrize(
    "how", [Optimisation(ema=0.5), Optimisation("sam"), Optimisation(awp=0.01)], ids=str
)
def test_pruned_networks_stay_pruned(
    few: Pair, small_net: Build, name: str, how: Optimisation
) -> None:
    net = small_net(width=4)
    pruning.prune(net, 0.75)
    gone, weight = net[0].weight == 0, net[0].weight.clone()
    options = {"eps": 0.05, "end": 0.1}
    train(
        net, few, method=name, method_options=options, epochs=1, lr=0.01, batch_size=50,
        optimisation=how, progress=False,
    )  # fmt: skip
    assert torch.equal(net[0].weight == 0, gone)
    assert not torch.equal(net[0].weight, weight)


def test_scores_learn_which_weights_verified_bounds_need(few: Pair, small_net: Build) -> None:
    net = small_net(width=4)
    with pruning.learned_scores(net, 0.5):
        scores = [p.detach().clone() for p in net.parameters() if p.requires_grad]
        train(
            net, few, method="ibp", method_options={"eps": 0.05, "end": 0.1}, epochs=1, lr=0.1,
            progress=False,
        )  # fmt: skip
        after = [p for p in net.parameters() if p.requires_grad]
        assert any(not torch.equal(a, b) for a, b in zip(scores, after, strict=True))
    assert pruning.report(net).sparsity == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", ["ibp", "crown-ibp"])
def test_resumed_is_bit_identical(small_net: Build, few: Pair, tmp_path: Path, name: str) -> None:
    def stop(model: nn.Module, record: Epoch) -> None:
        if record.epoch == 1:
            raise StopTraining("later")

    options: dict[str, Any] = {
        "epochs": 3, "method": name, "batch_size": 64, "progress": False, "lr": 0.01,
        "method_options": {"eps": 0.1, "kappa": Ramp(0.9, 0.2, begin=0.1)},
    }  # fmt: skip
    whole, net, constant = (small_net(width=4) for _ in range(3))
    train(whole, few, **options)
    train(net, few, saving=Saving(tmp_path), on_epoch=stop, **options)
    train(net, few, saving=Saving(tmp_path, resume=True), **options)
    assert torch.equal(net[0].weight, whole[0].weight)
    train(constant, few, **{**options, "method_options": {"eps": 0.1, "kappa": 0.2}})
    assert not torch.equal(constant[0].weight, whole[0].weight)


def test_layers_that_change_between_epochs_are_seen(few: Pair, small_net: Build) -> None:
    net = small_net()

    def widen(model: nn.Module, record: Epoch) -> None:
        if record.epoch == 0:
            model[8] = nn.Sequential(model[8], nn.Sigmoid())

    with pytest.raises(ValueError, match=r"no bounds are known of .*Sigmoid"):
        train(net, few, method="ibp", epochs=2, on_epoch=widen, progress=False)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 0.0}, "eps must be positive"),
        ({"eps": Ramp(-0.1, 0.1)}, "eps must be positive"),
        ({"kappa": 1.5}, r"kappa must lie in \[0, 1\], got 1.5"),
        ({"kappa": Ramp(1, -1)}, r"kappa must lie in \[0, 1\]"),
        ({"begin": 0.5, "end": 0.5}, "begin and end must be shares"),
        ({"beta": 0.5}, "method 'ibp': .*unexpected keyword"),
    ],
)
def test_bad_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        methods.build("ibp", **options)
    if "beta" in options:
        with pytest.raises(ValueError, match="beta must lie in"):
            methods.build("crown-ibp", beta=2.0)


def test_weights_and_layers_without_bounds_are_refused(few: Pair, small_net: Build) -> None:
    how: dict[str, Any] = {"method": "ibp", "epochs": 1, "progress": False, "batch_size": 100}
    with pytest.raises(ValueError, match=r"float32 or float64.*got torch.bfloat16"):
        train(small_net().bfloat16(), few, **how)
    with pytest.raises(ValueError, match=r"no bounds are known of module '1' .Sigmoid"):
        train(nn.Sequential(nn.Flatten(), nn.Sigmoid(), nn.Linear(64, 10)), few, **how)
