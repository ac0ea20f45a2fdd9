"""Values, vectors and nuclear norms against float64 and mpmath, on hard and on degenerate input."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest
import torch

from python_tests.support.op_tester import devices, opcheck
from python_tests.support.svd_matrices import (
    epsilons,
    exact_values,
    obliqueness,
    residual,
    spectra,
    with_values,
)
from repsim_fast import ops
from repsim_fast.ops.reference import svd as reference

DTYPES = (torch.float64, torch.float32)

# Errors allowed, in ε ‖a‖₂: what the docstring promises; in float64 that of LAPACK, the truth, seen
# 45 ε off on clustered values (test_float64_against_80_bits is sharper).
ALLOWED = {torch.float32: 10.0, torch.float64: 60.0}

# Around the widths where vectors, groups of matrices and methods change.
SHAPES = [
    *((1, 1), (1, 5), (5, 1), (2, 2), (3, 4), (7, 8), (16, 16), (17, 15)),
    *(
        (31, 33),
        (33, 31),
        (48, 48),
        (64, 64),
        (65, 65),
        (66, 67),
        (100, 7),
        (7, 100),
        (170, 100),
        (129, 130),
    ),
]


@pytest.fixture(autouse=True)
def _one_thread():
    """MKL's threads, which compute the truth, wait for one another on a busy machine."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def assert_decomposes(u, s, vh, a):
    """Values, product, orthonormality; where LAPACK did the work, up to four times its errors with
    the matrix or its transpose, by which a square one is decomposed."""
    turned = torch.linalg.svd(a.mT, full_matrices=False)
    own, direct, transposed = (
        (epsilons(f[1], a), residual(*f, a), obliqueness(f[0]), obliqueness(f[2].mT))
        for f in (
            (u, s, vh),
            torch.linalg.svd(a, full_matrices=False),
            (turned.Vh.mT, turned.S, turned.U.mT),
        )
    )
    for error, *lapack in zip(own, direct, transposed, strict=True):
        assert error <= max(ALLOWED[a.dtype], 4 * max(lapack)), (a.shape, error, lapack)


def random_batch(batch: int, m: int, n: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    return torch.randn(batch, m, n, dtype=torch.float64).to(dtype).to(device)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("batch", [1, 5, 19])
def test_random_matrices(device, dtype, batch):
    for m, n in SHAPES:
        a = random_batch(batch, m, n, dtype, device)
        values = ops.batched_svdvals(a)
        u, s, vh = ops.batched_svd(a)
        k = min(m, n)
        assert (values.shape, values.dtype, values.device) == ((batch, k), dtype, a.device)
        assert (u.shape, s.shape, vh.shape) == ((batch, m, k), (batch, k), (batch, k, n))
        assert epsilons(values, a) <= ALLOWED[dtype], (m, n)
        assert_decomposes(u, s, vh, a)
        for descending in (values, s):
            assert (descending[:, :-1] >= descending[:, 1:]).all()
            assert (descending >= 0).all()


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("m", "n"), [(6, 6), (40, 24), (24, 40), (64, 64), (90, 90)])
def test_hard_spectra(device, dtype, m, n):
    for name, values in spectra(min(m, n)).items():
        a = torch.stack([with_values(values, m, n) for _ in range(9)]).to(dtype).to(device)
        assert epsilons(ops.batched_svdvals(a), a) <= ALLOWED[dtype], name
        assert_decomposes(*ops.batched_svd(a), a)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "m", "n"), [(9, 5, 3), (9, 3, 5), (9, 33, 33), (2, 80, 70)])
def test_degenerate_matrices(device, dtype, batch, m, n):
    zero = torch.zeros(m, n)
    column = torch.outer(torch.ones(m), torch.eye(n)[-1])
    entry = torch.zeros(m, n)
    entry[m - 1, n // 2] = -3.0
    for matrix in (zero, column, entry, torch.eye(m, n), torch.ones(m, n), torch.eye(m, n).flip(0)):
        a = matrix.to(dtype).expand(batch, m, n).to(device)
        assert epsilons(ops.batched_svdvals(a), a) <= ALLOWED[dtype]
        assert_decomposes(*ops.batched_svd(a), a)
    assert (ops.batched_svdvals(zero.to(dtype).to(device)[None]) == 0).all()


@pytest.mark.skipif(np.finfo(np.longdouble).eps > 1e-18, reason="long double is no wider here")
@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize(("m", "n"), [(16, 16), (40, 28), (28, 40)])
def test_float64_against_80_bits(device, m, n):
    for name, values in spectra(min(m, n)).items():
        a = with_values(values, m, n)
        truth = exact_values(a)
        batch = a.expand(9, m, n).to(device)
        for found in (
            ops.batched_svdvals(batch[:1])[0],  # alone
            ops.batched_svdvals(batch)[0],  # together with others
            ops.batched_svd(batch)[1][0],
        ):
            error = np.abs(found.cpu().numpy().astype(np.longdouble) - truth).max()
            assert error <= 10 * np.finfo(np.float64).eps * truth[0], name


@pytest.mark.parametrize("device", devices())
def test_against_fifty_digits(device):
    for m, n in [(6, 6), (9, 4), (4, 9)]:
        a = with_values(10 ** -torch.linspace(0, 12, min(m, n), dtype=torch.float64), m, n)
        with mpmath.workdps(50):
            exact = mpmath.svd_r(mpmath.matrix(a.tolist()), compute_uv=False)
            truth = torch.tensor([float(x) for x in exact], dtype=torch.float64)
        for values in (
            ops.batched_svdvals(a[None].to(device)),
            ops.batched_svdvals(a.expand(9, m, n).to(device))[-1:],
            ops.batched_svd(a.expand(9, m, n).to(device))[1][-1:],
        ):
            error = (values[0].cpu() - truth).abs().max() / truth[0]
            assert error <= 4 * torch.finfo(torch.float64).eps


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "n"), [(17, 12), (3, 70)])
def test_scales_to_the_ends_of_the_range(device, dtype, batch, n):
    a = random_batch(batch, n, n, dtype, device)
    info = torch.finfo(dtype)
    for exponent in (-100, 90) if dtype == torch.float32 else (-1000, 1000):
        scale = 2.0**exponent
        scaled = a.double() * scale if dtype == torch.float64 else (a.double() * scale).float()
        values, (u, s, vh) = ops.batched_svdvals(scaled), ops.batched_svd(scaled)
        assert torch.equal(values, (ops.batched_svdvals(a).double() * scale).to(dtype))
        assert_decomposes(u, (s.double() / scale).to(dtype), vh, a)
    # Denormal entries have few digits, and their singular values are taken of those.
    tiny = torch.full((batch, n, n), info.smallest_normal / 8, dtype=dtype, device=device)
    assert (
        ops.batched_svdvals(tiny)[:, 0]
        .cpu()
        .double()
        .allclose(
            torch.tensor(n * info.smallest_normal / 8, dtype=torch.float64), rtol=1e-5, atol=0
        )
    )
    large = torch.full((batch, n, n), info.max / 2, dtype=dtype, device=device)
    assert ops.batched_svdvals(large)[:, 0].isinf().all()  # n/2 times the largest number


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("batch", "m", "n"), [(18, 9, 7), (18, 7, 9), (3, 70, 80)])
def test_non_finite_matrices_are_nan_alone(device, dtype, bad, batch, m, n):
    a = random_batch(batch, m, n, dtype, device)
    spoiled = a.clone()
    spoiled[1, m - 1, n // 2] = bad
    others = torch.arange(batch) != 1
    for op in (ops.batched_svdvals, ops.batched_nuclear_norm, ops.batched_svd):
        clean, result = op(a), op(spoiled)
        for x, y in zip(*((t,) if torch.is_tensor(t) else t for t in (clean, result)), strict=True):
            assert y[1].isnan().all()
            assert torch.equal(x[others], y[others])


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "m", "n"), [(20, 12, 9), (20, 9, 12), (6, 90, 72)])
def test_ragged_batch_equals_separate_calls(device, dtype, batch, m, n):
    a = random_batch(batch, m, n, dtype, device)
    rows = torch.randint(0, m + 1, (batch,))
    columns = torch.randint(0, n + 1, (batch,))
    rows[:3], columns[:3] = torch.tensor([0, m, 1]), torch.tensor([n, 0, 1])
    eps = torch.finfo(dtype).eps
    for r, c in [(rows, columns), (rows, None), (None, columns)]:
        values = ops.batched_svdvals(a, rows=r, columns=c)
        norms = ops.batched_nuclear_norm(a, rows=r, columns=c)
        u, s, vh = ops.batched_svd(a, rows=r, columns=c)
        for b in range(batch):
            mb = m if r is None else int(r[b])
            nb = n if c is None else int(c[b])
            kb, part = min(mb, nb), a[b : b + 1, :mb, :nb]
            alone = ops.batched_svdvals(part)
            atol = 10 * eps * float(alone.max()) if kb else 0
            torch.testing.assert_close(values[b : b + 1, :kb], alone, rtol=0, atol=atol)
            torch.testing.assert_close(s[b : b + 1, :kb], alone, rtol=0, atol=atol)
            torch.testing.assert_close(norms[b], alone.sum(), rtol=0, atol=atol * max(kb, 1))
            if kb:
                inner = (u[b : b + 1, :mb, :kb], s[b : b + 1, :kb], vh[b : b + 1, :kb, :nb])
                assert_decomposes(*inner, part)
            for padding in (values[b, kb:], s[b, kb:], u[b, mb:], u[b, :, kb:], vh[b, kb:]):
                assert (padding == 0).all()
            assert (vh[b, :, nb:] == 0).all()
        # What lies behind the lengths is not read.
        poisoned = a.clone()
        for b in range(batch):
            if r is not None:
                poisoned[b, int(r[b]) :] = torch.nan
            if c is not None:
                poisoned[b, :, int(c[b]) :] = torch.inf
        assert torch.equal(ops.batched_svdvals(poisoned, rows=r, columns=c), values)
        for x, y in zip(ops.batched_svd(poisoned, rows=r, columns=c), (u, s, vh), strict=True):
            assert torch.equal(x, y)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0), (0, 0, 0), (2, 0, 0)])
def test_empty(device, shape):
    batch, m, n = shape
    k = min(m, n)
    a = torch.empty(shape, device=device)
    assert ops.batched_svdvals(a).shape == (batch, k)
    assert torch.equal(ops.batched_nuclear_norm(a).cpu(), torch.zeros(batch))
    assert [t.shape for t in ops.batched_svd(a)] == [(batch, m, k), (batch, k), (batch, k, n)]


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("n", [11, 70])
def test_strides(device, n):
    base = torch.randn(18, 2 * n, 3 * n, device=device)
    for view in (
        base[:, :n, :n],
        base[::2, ::2, ::3],
        base.mT[:, :n, :n],
        base.permute(1, 2, 0)[:18, :n],
        base[:1, :n, :n].expand(18, n, n),
        base[:, :n, :1].expand(18, n, n),
    ):
        dense = view.contiguous()
        assert epsilons(ops.batched_svdvals(view), dense) <= 10
        assert_decomposes(*ops.batched_svd(view), dense)


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", DTYPES)
def test_nuclear_norm(device, dtype):
    for m, n in [(1, 1), (20, 30), (100, 80)]:
        a = random_batch(9, m, n, dtype, device)
        truth = reference.batched_nuclear_norm(a.cpu().double())
        error = (ops.batched_nuclear_norm(a).cpu().double() - truth).abs() / truth
        assert error.max() <= 4 * torch.finfo(dtype).eps


@pytest.mark.parametrize("device", devices())
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_types_are_computed_in_float32(device, dtype):
    a = torch.randn(3, 6, 5, device=device).to(dtype)
    assert torch.equal(ops.batched_svdvals(a), ops.batched_svdvals(a.float()))
    assert ops.batched_nuclear_norm(a).dtype == torch.float32
    assert {t.dtype for t in ops.batched_svd(a)} == {torch.float32}


@pytest.mark.parametrize("shape", [(70, 40, 40), (30, 128, 128), (30, 200, 70), (30, 70, 200)])
def test_the_number_of_threads_does_not_change_a_bit(shape):
    """Tall matrices made two threads wait for one another inside of MKL, for ever."""
    a = torch.randn(shape)
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            results.append((ops.batched_svdvals(a), *ops.batched_svd(a)))
    finally:
        torch.set_num_threads(threads)
    for other in results[1:]:
        assert all(torch.equal(x, y) for x, y in zip(results[0], other, strict=True))


def test_errors_name_the_argument():
    a = torch.zeros(2, 3, 4)
    for op in (ops.batched_svdvals, ops.batched_svd, ops.batched_nuclear_norm):
        with pytest.raises(TypeError, match=r"a: expected a torch.Tensor, got list"):
            op([1.0])
        with pytest.raises(TypeError, match=r"a: expected float64.*got torch.int64"):
            op(a.long())
        with pytest.raises(TypeError, match=r"a: expected float64.*got torch.complex64"):
            op(a.cfloat())
        with pytest.raises(ValueError, match=r"a: expected matrices .* got shape \(3, 4\)"):
            op(a[0])
        with pytest.raises(TypeError, match=r"rows: expected int64 lengths, got torch.float32"):
            op(a, rows=[1.9, 2.0])
        with pytest.raises(TypeError, match=r"rows: expected int64 lengths, got torch.float32"):
            op(a, rows=torch.ones(2))
        with pytest.raises(ValueError, match=r"columns: expected one length .* got shape \(3,\)"):
            op(a, columns=[1, 2, 3])
        with pytest.raises(
            ValueError, match=r"rows: expected lengths in 0 .. 3, got 4 for matrix 1"
        ):
            op(a, rows=[3, 4])
        with pytest.raises(ValueError, match=r"columns: .* in 0 .. 4, got -1 for matrix 0"):
            op(a, columns=[-1, 4])
    # The operators check for themselves as well: under torch.compile nothing else does.
    raw = torch.ops.repsim_fast.batched_svdvals
    with pytest.raises(RuntimeError, match=r"rows: expected lengths in 0 .. 3, got 4 for matrix 1"):
        raw(a, torch.tensor([3, 4]), None)
    with pytest.raises(RuntimeError, match="a: expected float64 or float32"):
        raw(a.half(), None, None)


# ---- autograd and tracing


RAGGED = {"rows": torch.tensor([4, 2, 5]), "columns": torch.tensor([3, 4, 2])}


@pytest.mark.parametrize("lengths", [{}, RAGGED], ids=["whole", "ragged"])
@pytest.mark.parametrize("shape", [(5, 4), (5, 5)])
def test_gradients(shape, lengths):
    batch = 3 if lengths else 2
    a = torch.randn(batch, *shape, dtype=torch.float64, requires_grad=True)

    def values(a):
        return ops.batched_svdvals(a, **lengths)

    def norm(a):
        return ops.batched_nuclear_norm(a, **lengths)

    def without_signs(a):
        # Products in which the arbitrary signs of U and Vh cancel, of first order in both.
        u, s, vh = ops.batched_svd(a, **lengths)
        return u @ vh, (u**2 * s[:, None]) @ vh**2, s

    for function in (values, norm, without_signs):
        assert torch.autograd.gradcheck(function, a)
        assert torch.autograd.gradgradcheck(function, a)


def test_gradients_of_a_wide_matrix():
    a = torch.randn(2, 3, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a: torch.matmul(*ops.batched_svd(a)[::2]), a)


def test_gradient_behind_the_lengths_is_zero():
    a = torch.randn(3, 5, 4, dtype=torch.float64, requires_grad=True)
    u, s, vh = ops.batched_svd(a, **RAGGED)
    (u.sin().sum() + s.sum() + vh.cos().sum()).backward()
    for b in range(3):
        assert (a.grad[b, RAGGED["rows"][b] :] == 0).all()
        assert (a.grad[b, :, RAGGED["columns"][b] :] == 0).all()
    assert a.grad.isfinite().all()


@pytest.mark.parametrize("name", ["batched_svdvals", "batched_nuclear_norm", "batched_svd"])
def test_torch_checks(name):
    op = getattr(torch.ops.repsim_fast, name)
    a = torch.randn(3, 5, 4, requires_grad=True)
    opcheck(op, a, None, None)
    opcheck(op, a, *RAGGED.values())
    opcheck(op, torch.randn(2, 4, 3).mT, None, None)


def test_compile():
    def loss(a):
        u, s, vh = ops.batched_svd(a, **RAGGED)
        return ops.batched_svdvals(a).sum() + s.sum() + (u @ vh).square().sum()

    a = torch.randn(3, 5, 4, requires_grad=True)
    compiled = torch.compile(loss, fullgraph=True, backend="aot_eager")
    (expected,) = torch.autograd.grad(loss(a), a)
    (found,) = torch.autograd.grad(compiled(a), a)
    torch.testing.assert_close(found, expected)
