"""Layers given as modules and numbers are those of their names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from repsim_fast import Capture, compare, models

X = torch.rand(40, 3, 8, 8)


@pytest.fixture
def net() -> nn.Module:
    return models.build("resnet-8", num_classes=10, seed=0).eval()


def captured(net: nn.Module, layers: Any) -> list[str]:
    return list(Capture(net, layers).names)


def test_modules(net: nn.Module) -> None:
    assert captured(net, net.conv1) == ["conv1"]
    assert captured(net, [net.stage1[0], "fc", net.bn1]) == captured(net, ["bn1", "stage1.0", "fc"])
    assert captured(net, net.stage2) == ["stage2"]  # a Sequential, which can be gone through
    assert captured(net, net) == ["(model)"]
    with pytest.raises(ValueError, match="the module Linear given is none of CifarResNet"):
        captured(net, nn.Linear(2, 2))


def test_numbers(net: nn.Module) -> None:
    names = captured(net, None)
    assert captured(net, 0) == names[:1]
    assert captured(net, [-1, 2, np.int64(0)]) == [names[0], names[2], names[-1]]
    with pytest.raises(ValueError, match=rf"lie in -{len(names)} to {len(names) - 1}, got 99"):
        captured(net, 99)
    for wrong in (True, 1.5, [None], [0, 2.5]):
        with pytest.raises(TypeError, match="layers must be names or patterns"):
            captured(net, wrong)


def test_case_does_not_matter(net: nn.Module) -> None:
    assert captured(net, "CONV1") == ["conv1"]
    assert captured(net, "Stage*.0.Relu2") == captured(net, "stage*.0.relu2")
    with pytest.raises(ValueError, match=r"'ConvOne' matched no layer\. Did you mean 'conv1'"):
        captured(net, "ConvOne")


def test_comparison(net: nn.Module) -> None:
    other = models.build("resnet-14", num_classes=10, seed=1).eval()
    both = {"net": net, "other": other}

    def layers_of(layers: Any) -> Any:
        result = compare(both, X, layers=layers)
        assert result.settings["layers"] == {n: ", ".join(ls) for n, ls in named(result).items()}
        return result.layers

    def named(result: Any) -> dict[str, tuple[str, ...]]:
        return dict(zip(result.models, result.layers, strict=True))

    assert layers_of([net.fc, other.fc]) == (("fc",), ("fc",))
    assert layers_of([net.conv1, net.fc, other.stage3]) == (("conv1", "fc"), ("stage3",))
    assert layers_of({"net": net.fc, "other": [0, -1]}) == (("fc",), ("conv1", "fc"))
    assert layers_of(-1) == (("fc",), ("fc",))
    assert compare(net, X, layers=net.stage1).layers == (("stage1",),)
    with pytest.raises(ValueError, match="none of the modules given is one of model 'other'"):
        compare(both, X, layers=[net.fc, net.conv1])
    with pytest.raises(ValueError, match="1 of the modules given are in none of the models"):
        compare(both, X, layers=[net.fc, other.fc, nn.ReLU()])
