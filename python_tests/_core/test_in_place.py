"""ReLUs in place for a while: where nobody reads what they overwrite, and back."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from repsim_fast import models
from repsim_fast._core.in_place import in_place, overwritable

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A normalised convolution, and a ``head`` of its maps with a ReLU to use."""

    def __init__(self, head: Callable[[Net, Tensor], Tensor]) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relu = nn.ReLU()
        self.linear = nn.Linear(8, 10)
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.linear(self.head(self, self.norm(self.conv(x))).mean((2, 3)))
        return logits


def plain(net: Net, maps: Tensor) -> Tensor:
    return net.relu(maps)


def shortcut(net: Net, maps: Tensor) -> Tensor:
    return net.relu(maps) + maps


def shortcut_when_training(net: Net, maps: Tensor) -> Tensor:
    return net.relu(maps) + maps if net.training else net.relu(maps)


def shortcut_when_not(net: Net, maps: Tensor) -> Tensor:
    return net.relu(maps) if net.training else net.relu(maps) + maps


def gradient_alone(net: Net, maps: Tensor) -> Tensor:
    return net.relu(maps.sigmoid())  # positive: overwritten with itself, which autograd refuses


def gradient_alone_unseen(net: Net, maps: Tensor) -> Tensor:
    return maps.square() + 0 * net.relu(maps.data)  # behind the back of autograd


def test_within_and_afterwards() -> None:
    net = models.build("wrn-10-1", num_classes=10, seed=0)
    found = overwritable(net, IMAGES)
    relus = [m for m in net.modules() if isinstance(m, nn.ReLU)]
    assert found == relus
    want = net(IMAGES)
    want.sum().backward()
    gradients = [p.grad for p in net.parameters()]
    net.zero_grad()

    def run_and_fail() -> None:
        with in_place(found):
            assert all(m.inplace for m in relus)
            got = net(IMAGES)
            got.sum().backward()
            assert torch.equal(got, want)
            raise KeyError

    with pytest.raises(KeyError):
        run_and_fail()
    assert not any(m.inplace for m in relus)
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)


@pytest.mark.parametrize(
    ("head", "count"),
    [
        (plain, 1),
        (shortcut, 0),
        (shortcut_when_training, 0),
        (shortcut_when_not, 0),
        (gradient_alone, 0),
        (gradient_alone_unseen, 0),
    ],
)
def test_what_reads_the_input_again(head: Callable[[Net, Tensor], Tensor], count: int) -> None:
    net = Net(head)
    assert len(overwritable(net, IMAGES)) == count
    assert not net.relu.inplace


@pytest.mark.parametrize("first", [nn.ReLU(), nn.Sequential(nn.Identity(), nn.ReLU6())])
def test_images_are_not_overwritten(first: nn.Module) -> None:
    assert not overwritable(nn.Sequential(first, nn.Flatten(), nn.Linear(192, 10)), IMAGES)


def test_images_that_autograd_does_not_watch_are_not_overwritten() -> None:
    class Detached(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.detach()

    net = nn.Sequential(Detached(), nn.ReLU(), nn.Flatten(), nn.Linear(192, 10))
    assert not overwritable(net, IMAGES)


def _hooked() -> nn.Module:
    net = Net(plain)
    net.norm.register_forward_hook(lambda *_: pytest.fail("a hook ran"))
    return net


def _hooked_gradient() -> nn.Module:
    net = Net(plain)
    net.conv.weight.register_hook(lambda _: pytest.fail("a hook ran"))
    return net


def _lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))


@pytest.mark.parametrize(
    "model",
    [
        _hooked,
        _hooked_gradient,
        _lazy,
        lambda: torch.compile(Net(plain), backend="eager"),
        lambda: Net(plain).forward,
    ],
)
def test_models_left_alone(model: Callable[[], nn.Module]) -> None:
    assert not overwritable(model(), IMAGES)


def test_leaves_no_trace() -> None:
    net = Net(plain)
    net.norm.eval()
    state = torch.get_rng_state()
    held = {name: value.clone() for name, value in net.state_dict().items()}
    images = IMAGES.clone()
    with torch.no_grad():
        assert overwritable(net, images) == [net.relu]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, IMAGES)
    assert net.training
    assert not net.norm.training
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    for name, value in net.state_dict().items():
        assert torch.equal(value, held[name]), name
