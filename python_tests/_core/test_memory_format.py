"""Channels last for a while: where, with the same answers, and back."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from repsim_fast import models
from repsim_fast._core import memory_format
from repsim_fast._core.memory_format import fastest_layout, laid_out

IMAGES = torch.rand(2, 3, 8, 8)


class Net(nn.Module):
    """A convolution and a classifier that sees its maps through ``rows``."""

    def __init__(self, rows: Callable[[Tensor], Tensor] = lambda maps: maps.flatten(1)) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.rows = rows
        self.linear = nn.Linear(8 * 64, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.rows(self.conv(x)))
        return logits


@pytest.fixture(autouse=True)
def _known_to_be_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_format, "_is_faster", lambda *_: True)


def test_within_and_afterwards() -> None:
    net = models.build("wrn-10-1", num_classes=10, seed=0)
    before = [(p.data_ptr(), p.stride(), p.detach().clone()) for p in net.parameters()]
    want = net.eval()(IMAGES)
    with fastest_layout(net, IMAGES) as layout:
        assert layout == torch.channels_last
        x = laid_out(IMAGES, layout)
        assert net.conv1(x).is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(net(x), want, rtol=1e-4, atol=1e-5)
    for parameter, (place, stride, value) in zip(net.parameters(), before, strict=True):
        assert (parameter.data_ptr(), parameter.stride()) == (place, stride)
        assert torch.equal(parameter, value)


def test_new_values_come_back_also_after_an_exception() -> None:
    net = Net()
    place, stride = net.conv.weight.data_ptr(), net.conv.weight.stride()

    def train_and_fail() -> None:
        with fastest_layout(net, IMAGES):
            nn.init.constant_(net.conv.weight, 3.0)
            raise KeyError

    with pytest.raises(KeyError):
        train_and_fail()
    assert (net.conv.weight.data_ptr(), net.conv.weight.stride()) == (place, stride)
    assert torch.equal(net.conv.weight, torch.full_like(net.conv.weight, 3.0))


def test_one_channel() -> None:
    conv = nn.Conv2d(1, 8, 3)
    with fastest_layout(nn.Sequential(conv, nn.Flatten()), IMAGES[:, :1]):
        assert conv(IMAGES[:, :1]).is_contiguous(memory_format=torch.channels_last)


def test_within_itself_and_a_model_with_channels_last() -> None:
    net = Net()
    with fastest_layout(net, IMAGES) as outer, fastest_layout(net, IMAGES) as inner:
        assert outer == inner == torch.channels_last
    net.to(memory_format=torch.channels_last)
    with fastest_layout(net, IMAGES) as layout:
        assert layout == torch.channels_last
    assert net.conv.weight.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    "rows",
    [
        lambda maps: maps.view(len(maps), -1),  # raises
        lambda maps: maps.as_strided((len(maps), 512), (512, 1)),  # other values
    ],
)
def test_a_model_that_needs_its_own_layout(rows: Callable[[Tensor], Tensor]) -> None:
    net = Net(rows)
    stride = net.conv.weight.stride()
    with fastest_layout(net, IMAGES) as layout:
        assert layout == torch.preserve_format
        assert net.conv.weight.stride() == stride
        net(laid_out(IMAGES, layout))


def _hooked() -> nn.Module:
    net = Net()
    net.conv.register_forward_hook(lambda *_: pytest.fail("a hook ran"))
    return net


def test_a_file_that_is_only_read(tmp_path: Path) -> None:
    path = tmp_path / "weight"
    Net().conv.weight.detach().numpy().tofile(path)
    held = np.memmap(path, np.float32, mode="r", shape=(8, 3, 3, 3))
    net = Net()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns that it must not be written to
        net.conv.weight = nn.Parameter(torch.from_numpy(held))
    place = net.conv.weight.data_ptr()
    with fastest_layout(net, IMAGES) as layout:
        assert layout == torch.channels_last
        assert net.conv.weight.data_ptr() != place
    assert net.conv.weight.data_ptr() == place


def _shared() -> nn.Module:
    return Net().share_memory()


def _flat() -> nn.Module:
    """Its parameters are views of one vector."""
    net = Net()
    flat = torch.cat([p.detach().flatten() for p in net.parameters()])
    for p, part in zip(
        net.parameters(), flat.split([p.numel() for p in net.parameters()]), strict=True
    ):
        p.data = part.view_as(p)
    return net


@pytest.mark.parametrize(
    "model",
    [
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 10)),
        # One of four matrices, as the patches of a transformer.
        lambda: nn.Sequential(Net(), *(nn.Linear(10, 10) for _ in range(2))),
        lambda: Net().double(),
        lambda: Net().to("meta"),
        lambda: torch.compile(Net(), backend="eager"),
        lambda: Net().forward,
        _hooked,
        _shared,
        _flat,
    ],
)
def test_models_left_alone(model: Callable[[], nn.Module]) -> None:
    with fastest_layout(model(), IMAGES) as layout:
        assert layout == torch.preserve_format


def test_leaves_no_trace() -> None:
    net = models.build("wrn-10-1", num_classes=10, seed=0)
    buffers = {name: value.clone() for name, value in net.named_buffers()}
    state = torch.get_rng_state()
    with fastest_layout(net, IMAGES):
        assert net.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, buffers[name]) for name, value in net.named_buffers())


def test_gradients_have_the_strides_of_their_weights() -> None:
    net = Net()
    with fastest_layout(net, IMAGES):
        net(IMAGES).sum().backward()
    assert net.conv.weight.grad is not None
    assert net.conv.weight.grad.stride() == net.conv.weight.stride()
