"""Batch norms that rectify at once: which do, and that nobody notices."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast import models
from repsim_fast.training.fused_norms import fused, fusible

LAST = torch.channels_last


def _network(norm: Any = nn.BatchNorm2d, **options: Any) -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), norm(8, **options), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)]
    return nn.Sequential(*layers).to(memory_format=LAST)


def _images(n: int = 1) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(1)).to(memory_format=LAST)


class _Shortcut(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return (self.relu(x) + x).flatten(1)


class _Own(nn.BatchNorm2d):
    pass


@pytest.mark.parametrize(("name", "pairs"), [("wrn-10-1", 7), ("preactresnet-18-w8", 17)])
def test_pairs_of_the_networks_here(name: str, pairs: int) -> None:
    net = models.build(name, num_classes=10, seed=0).to(memory_format=LAST)
    assert len(fusible(net, _images())) == pairs


def test_what_is_left_alone() -> None:
    hooked = _network()
    hooked[1].register_forward_hook(lambda *_: None)
    left = [
        _Shortcut().to(memory_format=LAST),
        hooked,
        _network(_Own),
        _network(affine=False),
        _network(track_running_stats=False),
    ]
    for net in left:
        assert fusible(net, _images()) == []
    net = _network()
    assert len(fusible(net, _images())) == 1
    assert not net[1]._forward_hooks


@pytest.mark.parametrize("mode", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("momentum", [0.1, None], ids=str)
def test_same_answers_gradients_and_averages(momentum: float | None, mode: bool) -> None:
    ours = _network(momentum=momentum).train(mode)
    plain = copy.deepcopy(ours)
    pairs = fusible(ours, _images())
    assert ours.state_dict().keys() == plain.state_dict().keys()
    with fused(pairs):
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


def test_modules_come_back_also_after_an_exception() -> None:
    net = _network()
    pairs = fusible(net, _images())
    with pytest.raises(ValueError, match="expected 4D input"), fused(pairs):
        net[1](torch.ones(2, 8))
    assert all("forward" not in module.__dict__ for module in net.modules())


def test_other_maps_go_through_torch() -> None:
    net = _network().eval()
    pairs = fusible(net, _images())
    want = net[2](net[1](torch.ones(2, 8, 3, 3)))
    with fused(pairs):
        torch.testing.assert_close(net[2](net[1](torch.ones(2, 8, 3, 3))), want)
    with fused(pairs), pytest.raises(ValueError, match="expected 4D input"):
        net[1](torch.ones(2, 8))
