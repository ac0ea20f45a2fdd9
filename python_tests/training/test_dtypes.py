"""Weights of other dtypes than float32 train as they are."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.attacks import PGD
from repsim_fast.training import (
    Evaluation,
    Optimisation,
    OverfittingDetector,
    SelectivityRegulariser,
    methods,
    train,
)
from repsim_fast.training.ema import WeightAverage
from repsim_fast.training.methods import TrainingBatch

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]

# Against losses that begin near 2.3. In float64 a few pixels step the other way, where rounding
# decides the sign of their gradients; bfloat16 rounds every weight after each of up to 32 steps.
CLOSE = {torch.float64: 1e-3, torch.bfloat16: 0.03}


# Bounds in bfloat16 would say nothing: they are refused.
BOUNDED = ("ibp", "crown-ibp")


@pytest.mark.parametrize("name", methods.available())
def test_every_method(small_net: Build, few: Pair, name: str) -> None:
    few = few[0][:96], few[1][:96]
    losses = {}
    for dtype in (torch.float32, *CLOSE):
        if name in BOUNDED and dtype == torch.bfloat16:
            continue
        net = small_net(width=8).to(dtype)
        before = [parameter.detach().clone() for parameter in net.parameters()]
        history = train(net, few, method=name, epochs=2, batch_size=48, lr=0.02, progress=False)
        losses[dtype] = [epoch.loss for epoch in history.epochs]
        for parameter, value in zip(net.parameters(), before, strict=True):
            assert parameter.dtype == dtype
            # A bias before BatchNorm has no gradient, nor small ones a place among 8 bits.
            assert parameter.ndim == 1 or not torch.equal(parameter, value)
            assert parameter.isfinite().all()
    single = losses.pop(torch.float32)
    for dtype, found in losses.items():
        assert found == pytest.approx(single, abs=CLOSE[dtype]), dtype
        assert found != single, dtype


@pytest.mark.parametrize("name", methods.available())
def test_losses_of_float64_models_are_float64(small_net: Build, few: Pair, name: str) -> None:
    batch = TrainingBatch(*few, torch.Generator().manual_seed(0))
    method = methods.build(name)
    net = small_net().double()
    loss, logits = method.loss(net, batch, method.perturb(net, batch))
    assert (loss.dtype, logits.dtype) == (torch.float64, torch.float64)


@pytest.mark.parametrize("dtype", CLOSE)
def test_with_every_option(small_net: Build, few: Pair, dtype: torch.dtype) -> None:
    net = small_net().to(dtype)
    history = train(
        net, few, method="pgd", method_options={"eps": 0.1, "steps": 2}, epochs=2,
        augment="crop",
        optimisation=Optimisation(awp=0.01, ema=0.9, regularisers=[SelectivityRegulariser(-1.0)]),
        evaluation=Evaluation(
            few, PGD(0.1, steps=2, seed=0), detector=OverfittingDetector(0.1, n=32)
        ),
        progress=False,
    )  # fmt: skip
    assert history.last.robust_accuracy is not None
    assert {value.dtype for value in net.state_dict().values()} == {dtype, torch.int64}


def test_images_of_another_dtype(small_net: Build, few: Pair) -> None:
    """Digits are multiples of 1/16, which bfloat16 and float64 hold exactly."""
    nets = []
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        nets.append(small_net())
        train(nets[-1], (few[0].to(dtype), few[1]), epochs=1, progress=False)
    for net in nets[1:]:
        assert torch.equal(net[0].weight, nets[0][0].weight)


def test_the_average_of_16_bit_weights_moves_by_small_steps() -> None:
    net = nn.Linear(1, 1, bias=False).bfloat16()
    nn.init.zeros_(net.weight)
    average = WeightAverage(net, 0.999)
    average.updates = 10**6  # past the beginning, where steps are large
    nn.init.ones_(net.weight)
    for _ in range(1000):
        average.update(net)
    want = 1 - 0.999**1000
    assert average.state["weight"].item() == pytest.approx(want, rel=1e-4)
    with average.applied(net):
        assert net.weight.dtype == torch.bfloat16
        assert net.weight.item() == pytest.approx(want, rel=2**-8)


def test_float16_weights_are_refused_before_anything_starts(small_net: Build, few: Pair) -> None:
    with pytest.raises(ValueError, match=r"model: expected .*, got float16 in '8\.bias'"):
        train(small_net().half(), few, progress=False)
    half = Optimisation(autocast=torch.float16)
    with pytest.raises(ValueError, match=r"autocast: expected torch\.bfloat16 or None .* got "):
        train(small_net().bfloat16(), few, optimisation=half, progress=False)
