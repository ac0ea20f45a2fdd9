"""Gradients of units in the input, against a loop over samples and units."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.analysis.gradients import (
    input_unit_gradients,
    jacobian_norms,
    mean_variability,
    variability,
)


class Net(nn.Module):
    """In place, one ReLU called twice, with batch norm and dropout, which vary in training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(1, 5, 3), nn.BatchNorm2d(5)
        self.relu, self.drop = nn.ReLU(inplace=True), nn.Dropout(0.5)
        self.fc = nn.Linear(5, 4)

    def hidden(self, x: Tensor) -> Tensor:
        return torch.relu(self.bn(self.conv(x)))

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn(self.conv(x))).mean((2, 3))
        return self.relu(self.fc(self.drop(x)))


def test_agrees_with_a_loop() -> None:
    net, x = Net().double(), torch.rand(6, 1, 8, 8, dtype=torch.float64)
    net(x).sum().backward()
    before = [p.grad.clone() for p in net.parameters() if p.grad is not None]
    found = input_unit_gradients(net, x)
    logits = jacobian_norms(net, x)
    assert net.training
    assert x.grad is None
    after = [p.grad for p in net.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert list(found) == ["relu", "relu#2"]
    net.eval()
    functions = {
        "relu": lambda one: net.hidden(one).mean((2, 3)),
        "relu#2": lambda one: torch.relu(net.fc(net.hidden(one).mean((2, 3)))),
    }
    for name, function in functions.items():
        want = []
        for image in x:
            jacobian = torch.autograd.functional.jacobian(function, image[None])
            want.append(jacobian.reshape(found[name].shape[1], -1).norm(dim=1))
        torch.testing.assert_close(found[name], torch.stack(want), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(logits, found["relu#2"].norm(dim=1))


def test_some_units() -> None:
    net, x = Net(), torch.rand(6, 1, 8, 8)
    every = input_unit_gradients(net, x, layers="conv")["conv"]
    some = input_unit_gradients(net, x, layers="conv", units=2, seed=3)["conv"]
    columns = [int((every - unit[:, None]).abs().amax(0).argmin()) for unit in some.T]
    assert len(set(columns)) == 2
    torch.testing.assert_close(some, every[:, columns])
    again = input_unit_gradients(net, x, layers="conv", units=2, seed=3)["conv"]
    assert torch.equal(again, some)
    assert input_unit_gradients(net, x, units=99)["relu"].shape == (6, 5)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_models_of_other_precision(dtype: torch.dtype) -> None:
    net, x = Net(), torch.rand(6, 1, 8, 8)
    want = jacobian_norms(net, x)
    found = jacobian_norms(net.to(dtype), x)
    torch.testing.assert_close(found, want, rtol=0.1, atol=0.0)


def test_variability_of_known_magnitudes() -> None:
    found = variability(torch.tensor([[1.0, 2.0, 0.0], [3.0, 2.0, 0.0]]))
    assert found.across_samples == pytest.approx((2**0.5 / 2 + 0) / 2)
    rows = [torch.tensor(row) for row in ([1.0, 2.0, 0.0], [3.0, 2.0, 0.0])]
    assert found.across_units == pytest.approx(sum(float(r.std() / r.mean()) for r in rows) / 2)
    assert math.isnan(variability(torch.zeros(3, 3)).across_samples)


def test_layers_without_a_coefficient_do_not_count() -> None:
    some = {"a": torch.rand(4, 3), "b": torch.ones(4, 3)}
    both, dead = mean_variability(some), torch.zeros(4, 3)
    assert both.across_samples == pytest.approx(variability(some["a"]).across_samples / 2)
    assert mean_variability({**some, "dead": dead}) == both
    assert math.isnan(mean_variability({"dead": dead}).across_units)


def test_bad_input() -> None:
    net, x = Net(), torch.rand(4, 1, 8, 8)
    with pytest.raises(ValueError, match="units must be at least 1"):
        input_unit_gradients(net, x, units=0)
    with pytest.raises(ValueError, match="must hold samples"):
        input_unit_gradients(net, x[:0])
    with pytest.raises(TypeError, match="floating-point tensor"):
        input_unit_gradients(net, (x * 255).byte())
    with pytest.raises(ValueError, match="matched no layer"):
        input_unit_gradients(net, x, layers="relu7")
    with pytest.raises(ValueError, match=r"n_units >= 1\), got \(4, 0\)"):
        input_unit_gradients(nn.Sequential(nn.Flatten(), nn.Linear(64, 0), nn.ReLU()), x)
    with pytest.raises(ValueError, match="N >= 2, n_units >= 2"):
        variability(torch.rand(1, 5))
    with pytest.raises(TypeError, match="units must be a whole number"):
        input_unit_gradients(net, x, units=2.5)
    for value, message in ((float("nan"), "expected finite values"), (-1.0, "at least 0, got -1")):
        with pytest.raises(ValueError, match=message):
            variability(torch.tensor([[value, 1.0], [2.0, 3.0]]))
    with pytest.raises(ValueError, match="gradients must be of one layer at least"):
        mean_variability({})
    assert not any(module._forward_hooks for module in net.modules())
