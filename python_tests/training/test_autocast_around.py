"""Training within an autocast of the caller's, which keeps the 16-bit values of weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.training import Optimisation, train

Build = Callable[..., nn.Module]
Pair = tuple[Tensor, Tensor]

HALF = torch.bfloat16


def trained(build: Build, data: Pair, **how: Any) -> Tensor:
    net = build()
    options: dict[str, Any] = {"epochs": 2, "batch_size": 50, "lr": 0.05, "progress": False}
    train(net, data, optimisation=Optimisation(**how), **options)
    return torch.cat([value.detach().flatten().double() for value in net.state_dict().values()])


@pytest.mark.parametrize("how", [{}, {"awp": 0.01}, {"optimizer": "sam"}, {"ema": 0.9}], ids=str)
def test_weights_are_cast_anew_in_each_step(
    small_net: Build, few: Pair, how: dict[str, Any]
) -> None:
    want = trained(small_net, few, autocast=HALF, **how)
    with torch.autocast("cpu", HALF):
        assert torch.equal(trained(small_net, few, **how), want)
        assert torch.equal(trained(small_net, few, autocast=HALF, **how), want)


@pytest.mark.parametrize("around", [("cpu", False), ("cuda", False)], ids=str)
def test_also_where_autocast_is_off_around_that_of_the_training(
    small_net: Build, few: Pair, around: tuple[str, bool]
) -> None:
    device, enabled = around
    want = trained(small_net, few, autocast=HALF)
    with torch.autocast(device, HALF, enabled=enabled):
        assert torch.equal(trained(small_net, few, autocast=HALF), want)


def test_the_caller_goes_on_with_the_weights_that_were_learnt(small_net: Build, few: Pair) -> None:
    net = small_net()
    with torch.autocast("cpu", HALF):
        net(few[0])  # the weights before are kept from here on
        train(net, few, epochs=1, progress=False)
        net.eval()
        within = net(few[0])
    with torch.autocast("cpu", HALF):
        assert torch.equal(within, net(few[0]))


@pytest.mark.parametrize("enabled", [True, False])
def test_the_caller_keeps_the_setting(small_net: Build, few: Pair, enabled: bool) -> None:
    def fail(model: nn.Module, record: object) -> None:
        raise OSError("disk full")

    with torch.autocast("cpu", HALF, cache_enabled=enabled):
        with pytest.raises(RuntimeError, match="disk full"):
            train(small_net(), few, epochs=1, on_epoch=fail, progress=False)
        assert torch.is_autocast_cache_enabled() == enabled
    assert torch.is_autocast_cache_enabled()
