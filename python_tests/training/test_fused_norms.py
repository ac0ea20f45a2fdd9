"""Batch norms that rectify at once: which do, and that nobody notices."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast import models
from repsim_fast._core import memory_format
from repsim_fast.attacks import PGD, Execution
from repsim_fast.training import (
    Optimisation,
    Saving,
    SelectivityRegulariser,
    evaluate,
    faster_form,
    fused_norms,
    train,
)
from repsim_fast.training.fused_norms import fused, fusible

LAST = torch.channels_last


def _network(norm: Any = nn.BatchNorm2d, **options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), norm(8, **options), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)]
    return nn.Sequential(*layers).to(memory_format=LAST)


def _images(n: int = 1) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(memory_format=LAST)


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of the operator had."""
    found: list[int] = []
    operator = fused_norms.batch_norm_relu

    def counted(x: Tensor, *arguments: Any, **options: Any) -> Any:
        found.append(len(x))
        return operator(x, *arguments, **options)

    monkeypatch.setattr(fused_norms, "batch_norm_relu", counted)
    return found


class _Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return (self.relu(x) + x).flatten(1)


class _Own(nn.BatchNorm2d):
    pass


class _Block(nn.Module):
    """One ReLU for a norm and for a sum that overwrites another norm's result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.again = (nn.Conv2d(3, 3, 3, padding=1, bias=False) for _ in range(2))
        self.first, self.second = nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.again(self.relu(self.first(self.conv(x)))))
        y += x
        return self.relu(y).flatten(1)


class _Twice(nn.Module):
    """A norm whose result is rectified once, and once is not."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.relu(self.norm(self.conv(x)))).flatten(1)


@pytest.mark.parametrize(("name", "pairs"), [("wrn-10-1", 7), ("preactresnet-18-w8", 17)])
def test_pairs_of_the_networks_here(name: str, pairs: int) -> None:
    net = models.build(name, num_classes=10, seed=0).to(memory_format=LAST)
    assert len(fusible(net, _images())) == pairs


def _set(net: nn.Sequential, **attributes: Any) -> nn.Sequential:
    for name, value in attributes.items():
        setattr(net[1], name, value)
    return net


def test_what_is_left_alone() -> None:
    hooked, compiled, own = _network(), _network(), _network()
    hooked[1].register_forward_hook(lambda *_: None)
    compiled.compile(backend="eager")
    own[2].forward = torch.relu
    left = [
        hooked,
        compiled,
        own,
        _Shortcut().to(memory_format=LAST),
        _Twice().to(memory_format=LAST),
        _network(_Own),
        _network(affine=False),
        _network(bias=False),
        _network(track_running_stats=False),
        _set(_network(), track_running_stats=False),  # keeps averages that stay as they are
        _set(_network(), num_batches_tracked=None),
        _set(_network(), running_mean=torch.zeros(8, dtype=torch.float64)),
        _network().bfloat16(),
        nn.DataParallel(_network()),
        torch.compile(_network(), backend="eager"),
    ]
    for number, net in enumerate(left):
        dtype = next(net.parameters()).dtype
        assert fusible(net, _images().to(dtype)) == [], number
    net = _network()
    assert fusible(net, _images()) == [(net[1], net[2])]
    assert not net[1]._forward_hooks


def _agree(ours: nn.Module, plain: nn.Module) -> None:
    """Both learn from two batches alike, and count them alike."""
    for _ in range(2):
        got, want = ours(_images(16)), plain(_images(16))
    got.square().sum().backward()
    want.square().sum().backward()
    torch.testing.assert_close(got, want)
    for (name, value), (_, exact) in zip(
        ours.named_parameters(), plain.named_parameters(), strict=True
    ):
        assert value.grad is not None, name
        # A bias before a norm of the batch has no gradient but rounding.
        torch.testing.assert_close(value.grad, exact.grad, rtol=1e-4, atol=2e-4)
    for value, exact in zip(ours.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(value, exact)


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("momentum", [0.1, 0.0, None], ids=str)
def test_same_answers_gradients_and_averages(
    momentum: float | None, mode: bool, rows: list[int]
) -> None:
    ours = _network(momentum=momentum).train(mode)
    plain = copy.deepcopy(ours)
    pairs = fusible(ours, _images())
    assert ours.state_dict().keys() == plain.state_dict().keys()
    with fused(pairs):
        _agree(ours, plain)
    assert rows == [16 * 36] * 2


def test_a_shared_relu_still_rectifies_what_else_it_gets(rows: list[int]) -> None:
    torch.manual_seed(0)
    ours = _Block().to(memory_format=LAST)
    plain = copy.deepcopy(ours)
    pairs = fusible(ours, _images())
    assert pairs == [(ours.first, ours.relu)]
    with fused(pairs):
        _agree(ours, plain)
    assert rows == [16 * 64] * 2


def test_copies_made_meanwhile_have_their_own_averages() -> None:
    net = _network()
    with fused(fusible(net, _images())):
        copied = copy.deepcopy(net)
        copied(_images(16))
    assert int(copied[1].num_batches_tracked) == 1
    assert int(net[1].num_batches_tracked) == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast(dtype: torch.dtype, rows: list[int]) -> None:
    ours = _network()
    plain = copy.deepcopy(ours)
    with fused(fusible(ours, _images())), torch.autocast("cpu", dtype):
        got, want = ours(_images(16)), plain(_images(16))
    assert got.dtype == want.dtype == dtype
    torch.testing.assert_close(got, want, rtol=2**-7, atol=2**-7)
    torch.testing.assert_close(ours[1].running_var, plain[1].running_var, rtol=1e-4, atol=0)
    assert bool(rows) == (dtype == torch.bfloat16)  # float16 goes through torch's functions


@pytest.mark.parametrize("execution", ["fast", Execution(compile="eager")], ids=str)
def test_attacks_of_a_rewritten_form(execution: Any) -> None:
    def attacked(model: nn.Module) -> Tensor:
        attack = PGD(0.1, norm="l2", steps=3, seed=0, execution=execution)
        return attack(model, _images(4), torch.arange(4))

    kept = _network().eval()  # its form is made before, and another's within
    want = attacked(kept)
    fresh = copy.deepcopy(kept)
    for net in (kept, fresh):
        with fused(fusible(net, _images())):
            torch.testing.assert_close(attacked(net), want)
        torch.testing.assert_close(attacked(net), want)


def test_modules_come_back_also_after_an_exception() -> None:
    net = _network()
    pairs = fusible(net, _images())
    with pytest.raises(ValueError, match="expected 4D input"), fused(pairs):
        net[1](torch.ones(2, 8))
    assert all("forward" not in module.__dict__ for module in net.modules())


def test_one_value_a_channel_is_refused_as_torch_does() -> None:
    norm, relu = nn.BatchNorm2d(3), nn.ReLU()
    with fused([(norm, relu)]), pytest.raises(ValueError, match="more than 1 value per channel"):
        norm(torch.ones(1, 3, 1, 1))
    assert int(norm.eval().num_batches_tracked) == 1  # torch counts before it refuses
    with fused([(norm, relu)]):
        assert norm(torch.ones(0, 3, 2, 2)).shape == (0, 3, 2, 2)


def test_other_maps_go_through_torch() -> None:
    net = _network().eval()
    pairs = fusible(net, _images())
    want = net[2](net[1](torch.ones(2, 8, 3, 3)))
    with fused(pairs):
        torch.testing.assert_close(net[2](net[1](torch.ones(2, 8, 3, 3))), want)
    with fused(pairs), pytest.raises(ValueError, match="expected 4D input"):
        net[1](torch.ones(2, 8))


DATA = torch.rand(24, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 4


@pytest.fixture
def faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """Channels last are known to be faster."""
    monkeypatch.setattr(memory_format, "_is_faster", lambda *_: True)


def _trained(method: str = "pgd", how: Optimisation | None = None, **options: Any) -> Any:
    """Network and mean loss. Steps in L2 go with the gradient, those of signs could jump, and are
    small where there are no others."""
    settings = {"eps": 0.5, "norm": "l2"} if method in ("pgd", "fgsm") else {}
    settings |= {"eps": 1e-3} if method == "gradalign" else {}
    settings |= {"steps": 2} if method == "pgd" else {}
    net = models.build("wrn-10-1", num_classes=4, seed=0)
    history = train(
        net, DATA, method=method, method_options=settings | options.pop("settings", {}),
        epochs=options.pop("epochs", 1), batch_size=12, lr=0.01, optimisation=how, progress=False,
        **options,
    )  # fmt: skip
    return net, history.last.loss


TRAININGS: dict[str, Callable[[], Any]] = {
    "standard": lambda: _trained("standard"),
    "pgd": _trained,
    "batch statistics": lambda: _trained(
        "fgsm", settings={"model_mode": "train", "update_statistics": True}
    ),
    "gradalign": lambda: _trained("gradalign", settings={"weight": 0.2}),
    "folded": lambda: _trained(settings={"execution": "fast"}),
    "ema": lambda: _trained(how=Optimisation(ema=0.5)),
    "awp": lambda: _trained(how=Optimisation(awp=0.01)),
    "sam": lambda: _trained(how=Optimisation(optimizer="sam")),
    "adam": lambda: _trained(how=Optimisation(optimizer="adam")),
    "statistics frozen": lambda: _trained(how=Optimisation(freeze_batch_norm="statistics")),
    "affine frozen": lambda: _trained(how=Optimisation(freeze_batch_norm="affine")),
    "norms frozen": lambda: _trained(how=Optimisation(freeze_batch_norm="both")),
}


@pytest.mark.parametrize("name", TRAININGS)
@pytest.mark.usefixtures("faster")
def test_a_training_changes_by_rounding_only(
    name: str, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, loss = TRAININGS[name]()
    assert max(rows) == 12 * 64  # of whole batches, not only where the form is looked for
    monkeypatch.setattr(faster_form, "fusible", lambda *_: [])
    rows.clear()
    plain, want = TRAININGS[name]()
    assert not rows
    assert loss == pytest.approx(want, rel=1e-5)
    for (key, got), exact in zip(
        ours.state_dict().items(), plain.state_dict().values(), strict=True
    ):
        torch.testing.assert_close(got, exact, rtol=1e-3, atol=1e-4, msg=lambda m, k=key: f"{k}{m}")


@pytest.mark.usefixtures("faster")
def test_regularisers_read_the_modules_as_they_are(rows: list[int]) -> None:
    _trained("standard", Optimisation(regularisers=(SelectivityRegulariser(0.1),)))
    assert not rows


@pytest.mark.parametrize("how", [{"ema": 0.5}, {"awp": 0.01}, {"momentum": 0.9}], ids=str)
@pytest.mark.usefixtures("faster")
def test_a_resumed_training_has_the_same_bits(how: Any, rows: list[int], tmp_path: Path) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    whole, _ = _trained(how=Optimisation(**how), epochs=2)
    with pytest.raises(KeyboardInterrupt):
        _trained(how=Optimisation(**how), epochs=2, saving=Saving(tmp_path), on_epoch=interrupt)
    rows.clear()
    resumed, _ = _trained(how=Optimisation(**how), epochs=2, saving=Saving(tmp_path, resume=True))
    assert max(rows) == 12 * 64
    for one, other in zip(whole.state_dict().values(), resumed.state_dict().values(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.usefixtures("faster")
def test_evaluation_by_an_attack(rows: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    net = models.build("wrn-10-1", num_classes=4, seed=0)
    seen: list[Tensor] = []
    attack = PGD(0.5, norm="l2", steps=2, random_start=False)
    for _ in range(2):
        evaluate(net, DATA, attack, on_batch=lambda adv, _: seen.append(adv))
        assert (24 * 64 in rows) == (len(seen) == 1)
        rows.clear()
        monkeypatch.setattr(faster_form, "fusible", lambda *_: [])
    torch.testing.assert_close(*seen)
    assert (seen[0] - DATA[0]).abs().max() > 0.01


@pytest.mark.usefixtures("faster")
def test_evaluation_of_a_function_or_without_an_attack(rows: list[int]) -> None:
    net = models.build("wrn-10-1", num_classes=4, seed=0)
    evaluate(net, DATA)
    evaluate(lambda x: net(x), DATA, PGD(0.5, norm="l2", steps=1))
    assert not rows


def _hook(model: nn.Module) -> None:
    model.bn.register_forward_hook(lambda *_: None)


def _replace(model: nn.Module) -> None:
    model.bn = nn.BatchNorm2d(64)


@pytest.mark.parametrize(("change", "looks", "fuses"), [(_hook, 1, False), (_replace, 2, True)])
@pytest.mark.usefixtures("faster")
def test_a_model_that_changes_between_epochs_is_looked_at_again(
    change: Any, looks: int, fuses: bool, rows: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[nn.Module] = []
    fused_in_epochs: list[bool] = []

    def counted(model: nn.Module, image: Tensor) -> Any:
        looked.append(model)
        return fusible(model, image)

    def change_once(model: nn.Module, record: Any) -> None:
        fused_in_epochs.append(12 * 64 in rows)
        rows.clear()
        if record.epoch == 1:
            change(model)

    monkeypatch.setattr(faster_form, "fusible", counted)
    _trained("standard", epochs=4, on_epoch=change_once)
    assert fused_in_epochs == [True, True, fuses, fuses]
    assert len(looked) == looks  # a hooked model keeps its strides, and so its norms
