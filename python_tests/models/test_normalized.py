"""A network that normalises its images itself is the network otherwise."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from repsim_fast import compare, list_layers, models
from repsim_fast.attacks import PGD

X = torch.rand(6, 3, 8, 8)
Y = torch.arange(6)
MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)


def by_hand(x: torch.Tensor) -> torch.Tensor:
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


@pytest.fixture
def net() -> nn.Module:
    return models.build("resnet-8", num_classes=10, seed=0).eval()


def test_output_and_names(net: nn.Module):
    own = models.normalized(net, MEAN, STD)
    assert torch.equal(own(X), net(by_hand(X)))
    assert isinstance(own, type(net))
    assert own.state_dict().keys() == net.state_dict().keys()
    assert [one.name for one in list_layers(own)] == [one.name for one in list_layers(net)]
    assert own.conv1.weight is net.conv1.weight


def test_the_model_stays_as_it_was(net: nn.Module):
    expected, attributes = net(X), set(vars(net))
    models.normalized(net, MEAN, STD).register_forward_hook(lambda *_: torch.zeros(1))
    assert torch.equal(net(X), expected)
    assert set(vars(net)) == attributes
    assert not dict(net.named_buffers()).keys() & {"_normalized_mean", "_normalized_std"}


def test_it_can_be_copied_moved_and_compiled_by_fx(net: nn.Module):
    own = models.normalized(net, MEAN, STD)
    assert torch.equal(copy.deepcopy(own)(X), own(X))
    assert torch.equal(torch.fx.symbolic_trace(own)(X), own(X))
    assert copy.deepcopy(own).double()(X.double()).dtype == torch.float64
    assert (
        models.normalized(copy.deepcopy(net).bfloat16(), MEAN, STD)(X.bfloat16()).dtype
        == torch.bfloat16
    )
    twice = models.normalized(own, 0.5, 2.0)
    assert torch.allclose(twice(X), own((X - 0.5) / 2.0), atol=1e-6)


@pytest.mark.parametrize("execution", ["exact", "fast"])
def test_attacks_search_in_images(net: nn.Module, execution: str):
    own = models.normalized(net, MEAN, STD)
    attack = PGD(0.1, steps=3, seed=0, execution=execution)
    found = attack(own, X, Y)
    expected = PGD(0.1, steps=3, seed=0, execution=execution)(lambda x: net(by_hand(x)), X, Y)
    assert (found - X).abs().max() <= 0.1 + 1e-6
    assert torch.allclose(found, expected, atol=1e-6)


def test_compared_as_by_hand(net: nn.Module):
    x = torch.rand(40, 3, 8, 8)
    options: dict[str, Any] = {"batch_size": 20, "shuffle": False, "layers": ["conv1", "stage2*"]}
    own = compare(models.normalized(net, MEAN, STD), x, **options)
    hand = compare(net, by_hand(x), **options)
    assert own.layers == hand.layers
    assert own.models == ("CifarResNet",)
    assert abs(own.value - hand.value).max() < 1e-5


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (MEAN, (0.2, 0.2), "std must have 3 numbers as mean has, got 2"),
        (MEAN, (0.2, 0.0, 0.2), "std must be above 0, got 0"),
        ((123.7, 116.3, 103.5), STD, r"images in \[0, 1\], got numbers up to 123.7"),
        ("imagenet", STD, "mean must be one number a channel, got 'imagenet'"),
        ((0.1, float("nan"), 0.2), STD, "mean must be one number a channel"),
    ],
)
def test_numbers_out_of_range(net: nn.Module, mean: Any, std: Any, message: str):
    with pytest.raises(ValueError, match=message):
        models.normalized(net, mean, std)
