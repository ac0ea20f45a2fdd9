"""Top eigenvalues of input Hessians against dense ones."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from repsim_fast.analysis.curvature import input_hessian_top


def network(activation: nn.Module) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), activation, nn.Flatten(), nn.Linear(36, 4)
        )
    return net.double()


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(6, 1, 5, 5, generator=generator).double(), torch.arange(6) % 4


def dense(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """All eigenvalues (N, d)."""
    net = net.eval()
    rows = []
    for image, label in zip(x, y, strict=True):

        def loss(flat: Tensor, label: Tensor = label) -> Tensor:
            return nn.functional.cross_entropy(net(flat.view(1, 1, 5, 5)), label[None])

        hessian = torch.autograd.functional.hessian(loss, image.flatten())
        rows.append(torch.linalg.eigvalsh(hessian))
    return torch.stack(rows)


@pytest.mark.parametrize("activation", [nn.Tanh(), nn.ReLU(inplace=True), nn.Softplus()])
def test_is_that_of_the_dense_hessian(activation: nn.Module, data: tuple[Tensor, Tensor]) -> None:
    net = network(activation)
    want = dense(net, *data)[:, -1]
    got = input_hessian_top(net.train(), *data, iterations=25)
    assert torch.allclose(got, want, rtol=1e-7)
    single = input_hessian_top(net.float(), data[0].float(), data[1], iterations=25)
    assert torch.allclose(single.double(), want, rtol=1e-3)


def test_rises_to_the_eigenvalue_from_below(data: tuple[Tensor, Tensor]) -> None:
    net = network(nn.Tanh())
    want = dense(net, *data)[:, -1]
    values = [input_hessian_top(net, *data, iterations=k) for k in (1, 3, 6, 12)]
    for one, next_one in zip(values, [*values[1:], want], strict=True):
        assert bool((one <= next_one + 1e-12).all())
    assert torch.allclose(values[-1], want, rtol=1e-3)


def test_largest_and_not_that_of_the_largest_size(data: tuple[Tensor, Tensor]) -> None:
    class Concave(nn.Module):
        """Cross-entropy of two logits whose Hessian at 0 is that of -2 |x|^2 of one of them."""

        def forward(self, x: Tensor) -> Tensor:
            square = 2 * x.flatten(1).square().sum(1)
            return torch.stack((square, torch.zeros_like(square)), 1)

    zeros = torch.zeros(3, 1, 5, 5).double()
    value = input_hessian_top(Concave(), zeros, torch.zeros(3, dtype=torch.int64))
    assert torch.allclose(value, torch.full((3,), -2.0).double())


def test_the_model_is_left_as_it_was(data: tuple[Tensor, Tensor]) -> None:
    net = network(nn.Tanh()).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    one, same = (input_hessian_top(net, *data, seed=0) for _ in range(2))
    assert torch.equal(one, same)
    assert torch.equal(state, torch.get_rng_state())
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())


def test_a_piecewise_linear_margin_has_none(data: tuple[Tensor, Tensor]) -> None:
    x, y = data
    constant = nn.Sequential(nn.Flatten(), nn.Linear(25, 4)).double()
    nn.init.zeros_(constant[1].weight)
    assert torch.equal(input_hessian_top(constant, x, y), torch.zeros(6).double())


def test_bad_input(data: tuple[Tensor, Tensor]) -> None:
    net, (x, y) = network(nn.Tanh()), data
    with pytest.raises(ValueError, match="iterations must be at least 1"):
        input_hessian_top(net, x, y, iterations=0)
    with pytest.raises(TypeError, match=r"iterations must be a whole number, got 2\.5"):
        input_hessian_top(net, x, y, iterations=2.5)
    with pytest.raises(ValueError, match="the model's classes, got labels in"):
        input_hessian_top(net, x, y + 1)
    with pytest.raises(ValueError, match="non-empty batch"):
        input_hessian_top(net, x[:0], y[:0])
    with pytest.raises(TypeError, match="floating-point tensor"):
        input_hessian_top(net, x.long(), y)
