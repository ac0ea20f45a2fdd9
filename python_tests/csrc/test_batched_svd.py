"""The CUDA kernels and operators of the batched SVD, executed on the CPU (csrc/README.md).

The runner grants 48 KiB of shared memory: larger matrices take the way over torch's library.
"""

from __future__ import annotations

from types import ModuleType

import pytest
import torch
from torch import Tensor

from python_tests.support.svd_matrices import epsilons, obliqueness, residual, spectra, with_values

_ops = torch.ops.repsim_fast_runner
DTYPES = (torch.float64, torch.float32)

# In ε ‖a‖₂; in float64 the truth, LAPACK, errs as well.
ALLOWED = {torch.float32: 10.0, torch.float64: 60.0}


@pytest.fixture(autouse=True)
def _runner(cpu_runner: ModuleType) -> None:
    """Every test here needs the operators that the runner's module registers; those of a GPU are
    tested with all operators (python_tests/ops)."""


def check(a: Tensor) -> None:
    values = _ops.batched_svdvals(a, None, None)
    u, s, vh = _ops.batched_svd(a, None, None)
    factors = torch.linalg.svd(a, full_matrices=False)
    for error, lapack in (
        (epsilons(values, a), epsilons(factors.S, a)),
        (epsilons(s, a), epsilons(factors.S, a)),
        (residual(u, s, vh, a), residual(*factors, a)),
        (obliqueness(u), obliqueness(factors.U)),
        (obliqueness(vh.mT), obliqueness(factors.Vh.mT)),
    ):
        assert error <= max(ALLOWED[a.dtype], 4 * lapack), (a.shape, error, lapack)
    for descending in (values, s):
        assert (descending[:, :-1] >= descending[:, 1:]).all()
        assert (descending >= 0).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_random_matrices(dtype: torch.dtype) -> None:
    small = [(1, 1), (1, 4), (4, 1), (2, 2), (5, 3), (3, 5)]
    for m, n in [*small, (31, 33), (40, 32), (33, 33), (64, 20)]:
        check(torch.randn(2, m, n, dtype=torch.float64).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", spectra(2))
def test_hard_spectra(dtype: torch.dtype, name: str) -> None:
    for m, n in [(12, 12), (20, 9)]:
        check(with_values(spectra(min(m, n))[name], m, n)[None].to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_degenerate_matrices(dtype: torch.dtype) -> None:
    for m, n in [(4, 4), (7, 5), (5, 7)]:
        last = torch.zeros(m, n)
        last[-1, 0] = -3.0
        matrices = (torch.zeros(m, n), last, torch.eye(m, n), torch.ones(m, n))
        check(torch.stack(matrices).to(dtype))


@pytest.mark.parametrize("dtype", DTYPES)
def test_scales_to_the_ends_of_the_range(dtype: torch.dtype) -> None:
    a = torch.randn(1, 9, 7, dtype=dtype)
    for exponent in (-100, 90) if dtype == torch.float32 else (-1000, 1000):
        scale = torch.tensor(2.0, dtype=torch.float64).pow(exponent)
        scaled = (a.double() * scale).to(dtype)
        values = _ops.batched_svdvals(scaled, None, None)
        plain = _ops.batched_svdvals(a, None, None)
        assert torch.equal(values, (plain.double() * scale).to(dtype))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize(("m", "n"), [(6, 4), (4, 6), (120, 110)])
def test_non_finite_matrices_are_nan_alone(m: int, n: int, bad: float) -> None:
    a = torch.randn(3, m, n)
    spoiled = a.clone()
    spoiled[1, m - 1, 1] = bad
    for name in ("batched_svdvals", "batched_nuclear_norm", "batched_svd"):
        clean, found = getattr(_ops, name)(a, None, None), getattr(_ops, name)(spoiled, None, None)
        for x, y in zip(*((t,) if torch.is_tensor(t) else t for t in (clean, found)), strict=True):
            assert y[1].isnan().all()
            assert torch.equal(x[[0, 2]], y[[0, 2]])


@pytest.mark.parametrize("given", ["rows", "columns", "both"])
@pytest.mark.parametrize(("m", "n"), [(7, 5), (5, 7), (120, 110)])
def test_ragged_batch_equals_separate_calls(m: int, n: int, given: str) -> None:
    a = torch.randn(5, m, n)
    rows = torch.tensor([m, 0, 3, 2, m - 1]) if given != "columns" else None
    columns = torch.tensor([n, 2, n - 1, 1, 3]) if given != "rows" else None
    poisoned = a.clone()
    for b in range(5):
        if rows is not None:
            poisoned[b, int(rows[b]) :] = torch.nan
        if columns is not None:
            poisoned[b, :, int(columns[b]) :] = torch.inf
    values = _ops.batched_svdvals(poisoned, rows, columns)
    norms = _ops.batched_nuclear_norm(poisoned, rows, columns)
    u, s, vh = _ops.batched_svd(poisoned, rows, columns)
    for b in range(5):
        mb = m if rows is None else int(rows[b])
        nb = n if columns is None else int(columns[b])
        kb, part = min(mb, nb), a[b : b + 1, :mb, :nb]
        for padding in (values[b, kb:], s[b, kb:], u[b, mb:], u[b, :, kb:], vh[b, kb:]):
            assert (padding == 0).all()
        assert (vh[b, :, nb:] == 0).all()
        if kb:
            assert epsilons(values[b : b + 1, :kb], part) <= 10
            assert epsilons(s[b : b + 1, :kb], part) <= 10
            inner = (u[b : b + 1, :mb, :kb], s[b : b + 1, :kb], vh[b : b + 1, :kb, :nb])
            assert residual(*inner, part) <= 30
            assert obliqueness(inner[0]) <= 30
        torch.testing.assert_close(norms[b], values[b].sum(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", ["batched_svdvals", "batched_nuclear_norm", "batched_svd"])
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0)])
def test_empty(shape: tuple[int, int, int], name: str) -> None:
    found = getattr(_ops, name)(torch.empty(shape), None, None)
    batch, m, n = shape
    k = min(m, n)
    if name == "batched_nuclear_norm":
        assert torch.equal(found, torch.zeros(batch))
    elif name == "batched_svdvals":
        assert found.shape == (batch, k)
    else:
        assert [t.shape for t in found] == [(batch, m, k), (batch, k), (batch, k, n)]


@pytest.mark.parametrize("n", [9, 110])
def test_strides(n: int) -> None:
    base = torch.randn(2, 2 * n, 3 * n)
    for view in (base[:, ::2, ::3], base.mT[:, :n, :n], base[:1, :n, :n].expand(2, n, n)):
        check(view)


@pytest.mark.parametrize("name", ["batched_svdvals", "batched_svd"])
def test_errors(name: str) -> None:
    op = getattr(_ops, name)
    a = torch.zeros(2, 3, 4)
    with pytest.raises(RuntimeError, match=r"a: expected matrices \(B, m, n\), got 2 dimensions"):
        op(a[0], None, None)
    with pytest.raises(RuntimeError, match="a: expected float64 or float32"):
        op(a.half(), None, None)
    with pytest.raises(RuntimeError, match=r"columns: expected lengths in 0 .. 4, got 5"):
        op(a, None, torch.tensor([1, 5]))
