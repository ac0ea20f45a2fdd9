"""Models that keep more, or other things, than weights and running statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import FGSM
from repsim_fast.training import Optimisation, Saving, StopTraining, evaluate, train
from repsim_fast.training.ema import WeightAverage

Pair = tuple[Tensor, Tensor]
QUICK: dict[str, Any] = {"lr": 0.05, "schedule": "constant", "progress": False}


class Counting(nn.Module):
    """Counts and averages in a buffer that each pass replaces by another tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.passes = self.passes + 1
        return self.linear(x.flatten(1))


class Drifting(nn.Module):
    """Subtracts a running mean that is in no state dict."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        self.register_buffer("mean", torch.zeros(10), persistent=False)
        self.register_buffer("last", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        logits = self.linear(x.flatten(1))
        if self.training:
            self.last = logits.detach()  # of another shape in each batch
            self.mean = 0.9 * self.mean + 0.1 * self.last.mean(0)
        return logits - 2 * self.mean


class Permuted(nn.Module):
    """Holds whole numbers as a parameter."""

    def __init__(self) -> None:
        super().__init__()
        self.order = nn.Parameter(torch.arange(64).flip(0), requires_grad=False)
        self.linear = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(1)[:, self.order])


@pytest.fixture
def seeded() -> Callable[[Callable[[], nn.Module]], nn.Module]:
    def build(factory: Callable[[], nn.Module]) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return factory()

    return build


@pytest.mark.parametrize("how", [{"optimizer": "sam"}, {"awp": 0.01}, {}])
def test_second_passes_leave_replaced_buffers(how: dict[str, Any], few: Pair) -> None:
    net = Counting()
    train(net, few, epochs=1, batch_size=50, optimisation=Optimisation(**how), **QUICK)
    assert net.passes == 4


def test_buffers_outside_the_state_dict_resume(seeded: Any, few: Pair, tmp_path: Path) -> None:
    def stop(_: nn.Module, record: Any) -> None:
        if record.epoch == 0:
            raise StopTraining("for now")

    whole, stopped, resumed = (seeded(Drifting) for _ in range(3))
    options: dict[str, Any] = {"epochs": 3, "batch_size": 64, **QUICK}
    train(whole, few, **options)
    saving = Saving(tmp_path, resume=True)
    train(stopped, few, saving=saving, on_epoch=stop, **options)
    train(resumed, few, saving=saving, **options)
    assert torch.equal(resumed.linear.weight, whole.linear.weight)
    assert torch.equal(resumed.mean, whole.mean)
    assert whole.mean.any()
    plain = Drifting()
    del plain.last
    with pytest.raises(ValueError, match="a buffer that the model has not: 'last'"):
        train(plain, few, saving=saving, **options)


def test_whole_numbers_among_the_parameters(seeded: Any, few: Pair) -> None:
    net, plain = seeded(Permuted), seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10)))
    flipped = (few[0].flatten(1).flip(1).view_as(few[0]), few[1])
    how = Optimisation(max_grad_norm=1.0, ema=0.9)
    train(net, few, epochs=1, optimisation=how, **QUICK)
    train(plain, flipped, epochs=1, optimisation=how, **QUICK)
    assert torch.allclose(net.linear.weight, plain[1].weight)


def test_complex_weights_are_averaged() -> None:
    net = nn.Module()
    net.weight = nn.Parameter(torch.zeros(2, dtype=torch.complex64))
    average = WeightAverage(net, 0.5)
    with torch.no_grad():
        net.weight.copy_(torch.tensor([1.0, 1.0j]))
    average.update(net)
    share = 1 - 2 / 11  # the first decays are (1 + t) / (10 + t)
    assert torch.allclose(average.state["weight"], share * net.weight)


class Annotated(nn.Linear):
    """Has a dictionary in its state dict."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.flatten(1))

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def test_state_that_no_checkpoint_holds(few: Pair, tmp_path: Path) -> None:
    train(Annotated(64, 10), few, epochs=1, **QUICK)
    for options in ({"saving": Saving(tmp_path)}, {"optimisation": Optimisation(ema=0.9)}):
        with pytest.raises(TypeError, match="must be of tensors, got dict in '_extra_state'"):
            train(Annotated(64, 10), few, epochs=1, **options, **QUICK)


@pytest.mark.parametrize(
    "used",
    [
        lambda net, few: train(net, few, epochs=1, **QUICK),
        lambda net, few: evaluate(net, few, FGSM(0.1)),
        lambda net, few: FGSM(0.1)(net, *few),
    ],
    ids=["train", "evaluate", "attack"],
)
def test_lazy_layers_are_to_be_run_first(used: Callable[..., Any], few: Pair) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises(ValueError, match=r"^model: '3\.weight' has no value yet: run the model"):
        used(net, few)
    net(few[0][:1])
    used(net, few)
