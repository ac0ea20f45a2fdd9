"""A batch norm and its ReLU against torch's two functions in float64."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from repsim_fast.ops import batch_norm_relu

# Some of several chunks, of channels that vectors' lanes are many of, as many as or few beside.
SHAPES = [(1, 3), (5, 1), (50, 19), (300, 64), (5000, 33), (60000, 7), (20000, 16), (4000, 200)]
TOLERANCES = {torch.float32: 2e-6, torch.bfloat16: 2**-8}


def _arguments(n: int, c: int, dtype: torch.dtype, given: bool) -> list[Tensor]:
    generator = torch.Generator().manual_seed(n + c)
    # Far from 0, where sums of squares would cancel, and no value so near the ReLU's corner that
    # rounding decides.
    x = torch.randn(n, c, generator=generator) + 3
    vectors = [torch.randn(c, generator=generator) for _ in range(3)]
    vectors.append(torch.rand(c, generator=generator) + 0.5)
    return [x.to(dtype), *(vectors if given else vectors[:2])]


def _want(x: Tensor, weight: Tensor, bias: Tensor, *moments: Tensor) -> Tensor:
    mean, variance = moments or (None, None)
    wide = functional.batch_norm(x, mean, variance, weight, bias, training=not moments)
    return torch.relu(wide)


@pytest.mark.parametrize("given", [False, True], ids=["batch", "given"])
@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_values_and_gradients(shape: tuple[int, int], dtype: torch.dtype, given: bool) -> None:
    arguments = _arguments(*shape, dtype, given)
    ours = [a.clone().requires_grad_() for a in arguments[:3]]
    wide = [a.double().requires_grad_() for a in arguments[:3]]
    moments = tuple(arguments[3:]) or None
    got, mean, variance = batch_norm_relu(*ours, moments)
    want = _want(*wide, *(m.double() for m in arguments[3:]))
    grad = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)
    gradients = torch.autograd.grad(got, ours, grad)
    wanted = torch.autograd.grad(want, wide, grad.double())
    assert got.dtype == gradients[0].dtype == dtype
    for value, exact in zip((got, *gradients), (want, *wanted), strict=True):
        bound = TOLERANCES[dtype] * float(exact.detach().abs().max()) * shape[0] ** 0.5
        assert float((value.double() - exact).detach().abs().max()) <= bound
    if not given:
        spread, middle = torch.var_mean(arguments[0].double(), 0, correction=0)
        torch.testing.assert_close(mean.double(), middle, rtol=1e-6, atol=0)
        torch.testing.assert_close(variance.double(), spread, rtol=1e-5, atol=1e-12)


def test_one_row_with_given_moments() -> None:
    x, weight, bias, mean, variance = _arguments(1, 3, torch.float32, given=True)
    got = batch_norm_relu(x, weight, bias, (mean, variance))[0]
    torch.testing.assert_close(got, _want(x, weight, bias, mean, variance))


def test_strides_threads_and_nan() -> None:
    x, weight, bias = _arguments(40000, 24, torch.float32, given=False)
    want = batch_norm_relu(x, weight, bias)[0]
    assert torch.equal(batch_norm_relu(x.t().contiguous().t(), weight, bias)[0], want)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(batch_norm_relu(x, weight, bias)[0], want)
    finally:
        torch.set_num_threads(threads)
    x[5, 2] = torch.nan
    got = batch_norm_relu(x, weight, bias)[0]
    assert got[:, 2].isnan().all()
    assert not got[:, [0, 1, 3]].isnan().any()
    half = batch_norm_relu(x.bfloat16(), weight, bias)[0]
    assert half[:, 2].isnan().all()


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
def test_moments_of_sorted_rows(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(30000, 12, generator=generator)
    x[:200] += 1e4  # what comes first says nothing of the others
    x[:, 1] = 7.0
    x = x.to(dtype)
    _, mean, variance = batch_norm_relu(x, torch.ones(12), torch.zeros(12))
    spread, middle = torch.var_mean(x.double(), 0, correction=0)
    assert ((mean.double() - middle).abs() <= 1e-6 * (spread.sqrt() + 1)).all()
    torch.testing.assert_close(variance.double(), spread, rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("channels", [1 << 19, 500_001])
def test_few_rows_of_very_many_channels(channels: int) -> None:
    x = torch.randn(2, channels, generator=torch.Generator().manual_seed(0))
    ones = torch.ones(channels)
    got, mean, variance = batch_norm_relu(x, ones, ones)
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(variance, x.var(0, correction=0))
    exact = _want(x.double(), ones.double(), ones.double())
    torch.testing.assert_close(got.double(), exact, rtol=1e-3, atol=1e-5)


def test_no_channels() -> None:
    x, none = torch.ones(5, 0, requires_grad=True), torch.ones(0)
    got = batch_norm_relu(x, none, none)[0]
    got.sum().backward()
    assert got.shape == (5, 0)
    assert x.grad is not None


@pytest.mark.parametrize("given", [False, True], ids=["batch", "given"])
def test_gradient_of_the_input_alone(given: bool) -> None:
    x, weight, bias, *moments = _arguments(50, 19, torch.float32, given)
    found = []
    for of_weights in (True, False):
        leaves = [x.requires_grad_(), *(v.requires_grad_(of_weights) for v in (weight, bias))]
        y = batch_norm_relu(*leaves, tuple(moments) or None)[0]
        found.append(torch.autograd.grad(y.square().sum(), x)[0])
    assert torch.equal(*found)


@pytest.mark.parametrize("given", [False, True], ids=["batch", "given"])
def test_twice_differentiable(given: bool) -> None:
    arguments = _arguments(50, 5, torch.float32, given)
    leaves = [a.requires_grad_() for a in arguments[:3]]
    moments = tuple(arguments[3:]) or None
    found = []
    for y in (batch_norm_relu(*leaves, moments)[0], _want(*leaves, *arguments[3:])):
        once = torch.autograd.grad(y.square().sum(), leaves, create_graph=True)
        found.append(torch.autograd.grad(sum(g.square().sum() for g in once), leaves))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("given", [False, True], ids=["batch", "given"])
def test_opcheck(given: bool) -> None:
    arguments = _arguments(50, 5, torch.float32, given)
    leaves = [a.requires_grad_() for a in arguments[:3]]
    moments = arguments[3:] or [None, None]
    torch.library.opcheck(torch.ops.repsim_fast.batch_norm_relu, (*leaves, *moments, 1e-5))


def test_errors() -> None:
    x, one = torch.ones(4, 2), torch.ones(2)
    with pytest.raises(TypeError, match=r"x: expected float32 or bfloat16, got torch.float64"):
        batch_norm_relu(x.double(), one, one)
    with pytest.raises(ValueError, match="x: expected at least 2 rows, got 1"):
        batch_norm_relu(x[:1], one, one)
    with pytest.raises(ValueError, match="x: expected at least 1 rows, got 0"):
        batch_norm_relu(x[:0], one, one, (one, one))
    with pytest.raises(ValueError, match=r"bias: expected shape \(2,\), got shape \(3,\)"):
        batch_norm_relu(x, one, torch.ones(3))
    with pytest.raises(TypeError, match=r"variance: expected float32, got torch.float64"):
        batch_norm_relu(x, one, one, (one, one.double()))
