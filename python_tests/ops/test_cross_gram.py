"""Products of features: values on every size, strides, special numbers, gradients, threads."""

from __future__ import annotations

import pytest
import torch

from python_tests.support.op_tester import assert_as_good_as_plain_torch, devices, opcheck
from repsim_fast.ops import cross_gram
from repsim_fast.ops.gram import cross_gram as _ops_cross

# Around the panel of 32 features and the block of 192 (96) samples.
SIZES = [
    (1, 1, 1),
    (5, 3, 31),
    (64, 32, 33),
    (96, 64, 96),
    (193, 65, 7),
    (400, 31, 100),
    (385, 97, 64),
]


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_values(device, dtype):
    for n, p, q in SIZES:
        x, y = (torch.randn(n, d, device=device).to(dtype) for d in (p, q))
        out = cross_gram(x, y)
        assert out.shape == (p, q)
        assert out.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
        truth = x.double().T @ y.double()
        assert_as_good_as_plain_torch(out, x.to(out.dtype).T @ y.to(out.dtype), truth, atol=1e-15)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("function", [cross_gram, _ops_cross._cuda])
def test_autocast_does_not_change_the_precision(device, function):
    x, y = torch.randn(50, 6, device=device), torch.randn(50, 4, device=device)
    with torch.autocast(device, dtype=torch.bfloat16):
        out = function(x, y)
    torch.testing.assert_close(out, x.T @ y)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(threads):
    x, y = torch.randn(500, 200), torch.randn(500, 300)
    before = torch.get_num_threads()
    expected = cross_gram(x, y)
    torch.set_num_threads(threads)
    try:
        assert torch.equal(cross_gram(x, y), expected)  # every element has one order of summation
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("threads", [1, 3])
def test_products_with_itself_are_those_with_a_copy(dtype, threads):
    """Half of them is computed; the result is symmetric to the bit."""
    torch.set_num_threads(threads)
    for n, p in [(1, 1), (5, 31), (64, 33), (193, 96), (300, 200), (9, 1100)]:
        x = torch.randn(n, p).to(dtype)
        x[n // 2, p // 2] = float("nan")
        own, copied = cross_gram(x, x), cross_gram(x, x.clone())
        assert torch.equal(own.nan_to_num(7e7), copied.nan_to_num(7e7)), (n, p)
        assert torch.equal(own.nan_to_num(7e7), own.T.nan_to_num(7e7)), (n, p)


def test_strides_and_empty_sizes():
    x, y = torch.randn(60, 40).T, torch.randn(80, 70)[::2, ::2]
    torch.testing.assert_close(cross_gram(x, y), x.T @ y)
    for n, p, q in ((0, 3, 4), (3, 0, 4), (3, 4, 0)):
        out = cross_gram(torch.randn(n, p), torch.randn(n, q))
        assert torch.equal(out, torch.zeros(p, q))


def test_nan_stays_in_its_row_and_column():
    x, y = torch.randn(50, 40), torch.randn(50, 40)
    x[3, 7], y[4, 9] = float("nan"), float("inf")
    out = cross_gram(x, y)
    assert bool(out[7].isnan().all())
    assert not bool(out[:, 9].isfinite().any())
    out[7], out[:, 9] = 0, 0
    assert bool(out.isfinite().all())


def test_results_beyond_the_tiles_that_are_held_at_once():
    x, y = torch.randn(40, 1100), torch.randn(40, 9000)  # 36 MiB of tiles
    torch.testing.assert_close(cross_gram(x, y), x.T @ y, atol=1e-4, rtol=1e-5)


def test_gradients_and_torch_checks():
    x = torch.randn(7, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(7, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(cross_gram, (x, y))
    assert torch.autograd.gradgradcheck(cross_gram, (x, y))
    opcheck(torch.ops.repsim_fast.cross_gram.default, x, y)
    compiled = torch.compile(cross_gram, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x, y), x.T @ y)


def test_misuse():
    x = torch.randn(5, 3)
    with pytest.raises(ValueError, match="y: expected 5 rows as x, got 4"):
        cross_gram(x, torch.randn(4, 3))
    with pytest.raises(TypeError, match=r"y: expected torch.float32 as x, got torch.float64"):
        cross_gram(x, torch.randn(5, 3).double())
    with pytest.raises(ValueError, match="x: expected a matrix"):
        cross_gram(x[0], x)
    with pytest.raises(TypeError, match=r"y: expected a torch.Tensor"):
        cross_gram(x, 3)
    with pytest.raises(RuntimeError, match="y: expected 5 samples as x, got 4"):
        torch.ops.repsim_fast.cross_gram(x, x[:4])
