"""Eigenvectors of many symmetric matrices: values, order, gradients, what LAPACK refuses."""

from __future__ import annotations

import pytest
import torch

from python_tests.support.op_tester import devices, opcheck
from repsim_fast.ops import batched_eigh
from repsim_fast.ops.svd.batched_eigh import _cuda as eigh_of_gpus


def symmetric(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    a = torch.randn(*shape, shape[-1], dtype=torch.float64)
    return (a + a.mT).to(dtype)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("batch", "n"), [(1, 5), (7, 1), (9, 20), (3, 65), (0, 4), (4, 0)])
def test_decomposition(device, dtype, batch, n):
    a = symmetric(batch, n, dtype=dtype).to(device)
    w, v = batched_eigh(a)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    assert w.dtype == v.dtype == wide
    eps = torch.finfo(wide).eps * 10 * max(n, 1)
    torch.testing.assert_close((v * w[:, None, :]) @ v.mT, a.to(wide), atol=10 * eps, rtol=0)
    torch.testing.assert_close(v.mT @ v, torch.eye(n).to(v).expand(batch, n, n), atol=eps, rtol=0)
    assert bool((w.diff(dim=1) >= 0).all())
    torch.testing.assert_close(w, torch.linalg.eigvalsh(a.to(wide)), atol=10 * eps, rtol=0)


@pytest.mark.parametrize("size", [30, 200])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads, size):
    a = symmetric(6, size, dtype=torch.float32)
    before = torch.get_num_threads()
    expected = torch.stack([batched_eigh(one[None])[0][0] for one in a])
    torch.set_num_threads(threads)
    try:
        torch.testing.assert_close(batched_eigh(a)[0], expected)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


def test_only_the_lower_triangle_is_read_and_strides_do_not_matter():
    a = symmetric(3, 8)
    expected = batched_eigh(a)[0]
    torch.testing.assert_close(batched_eigh(a.tril())[0], expected)
    torch.testing.assert_close(
        batched_eigh(a.permute(1, 2, 0).contiguous().permute(2, 0, 1))[0], expected
    )


def test_gradients_and_torch_checks():
    a = symmetric(2, 4).requires_grad_()

    def function(a: torch.Tensor) -> torch.Tensor:
        w, v = batched_eigh((a + a.mT) / 2)
        return torch.cat([w.sin(), (v.square() * torch.arange(4.0).double()).sum(dim=1)])

    assert torch.autograd.gradcheck(function, (a,))
    assert torch.autograd.gradgradcheck(function, (a,))
    opcheck(torch.ops.repsim_fast.batched_eigh.default, a.detach())
    equal = torch.eye(3, dtype=torch.float64)[None].requires_grad_()
    batched_eigh(equal)[0].square().sum().backward()
    torch.testing.assert_close(equal.grad, 2 * equal.detach())


def test_misuse():
    with pytest.raises(ValueError, match=r"a: expected square matrices .* got shape \(2, 3\)"):
        batched_eigh(torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"got shape \(1, 2, 3\)"):
        batched_eigh(torch.ones(1, 2, 3))
    with pytest.raises(TypeError, match=r"a: expected float64.* got torch.int64"):
        batched_eigh(torch.ones(1, 3, 3).long())


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_a_matrix_that_is_not_finite_is_named(wrong):
    for function in (batched_eigh, eigh_of_gpus):
        a = symmetric(3, 5)
        a[0, 0, 2] = wrong  # above the diagonal: not read
        torch.testing.assert_close(function(a)[0], batched_eigh(a.tril())[0])
        a[1, 2, 0] = wrong
        with pytest.raises(RuntimeError, match="matrix 1 is not finite"):
            function(a)


@pytest.mark.parametrize("device", devices()[1:])
def test_a_matrix_that_is_not_finite_is_named_on_a_gpu(device):
    for n in (5, 40):
        a = symmetric(3, n).to(device)
        a[1, 2, 0] = float("nan")
        with pytest.raises(RuntimeError, match="matrix 1 is not finite"):
            batched_eigh(a)
