"""Batched singular values and vectors against torch.linalg, in the same run.

Bound: 8/3 n³ operations of a bidiagonalisation, half of them a matrix-vector product that reads the
matrix once more; singular values from there cost some 25 n² (float32) or 50 n² steps.
"""

from __future__ import annotations

import pytest
import torch
from timing import side_by_side

from repsim_fast import ops

# The shapes of the goals, the sizes around a change of method, and a ragged grid as CCA has it.
SQUARE = [(4096, 16), (4096, 32), (1024, 64), (512, 128), (128, 256), (64, 512)]
VECTORS = [(4096, 16), (4096, 32), (1024, 64), (256, 128)]
DTYPES = [torch.float32, torch.float64]


def device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def name(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def error_of(values: torch.Tensor, a: torch.Tensor) -> float:
    """Largest error in ε σ₁ over some of the matrices."""
    some = slice(None, None, max(1, len(a) // 64))
    truth = torch.linalg.svdvals(a[some].double().cpu())
    error = (values[some].double().cpu() - truth).abs() / truth[:, :1]
    return float(error.max()) / torch.finfo(a.dtype).eps


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SQUARE, ids=name)
def test_singular_values(benchmark, record, shape, dtype):
    batch, n = shape
    a = torch.randn(batch, n, n, dtype=dtype, device=device())
    error = error_of(ops.batched_svdvals(a), a)
    assert error < (10 if dtype == torch.float32 else 60)  # float64: that of the truth

    times = side_by_side(
        {
            "torch": lambda: torch.linalg.svdvals(a),
            "ours": lambda: ops.batched_svdvals(a),
        },
        rounds=5,
        warmup=1,
    )
    for alternative, timing in times.items():
        record(
            f"values {name((batch, n, n))} {dtype} {alternative}",
            **timing.row(),
            speedup_over_torch=times["torch"].median / timing.median,
            microseconds_a_matrix=timing.median / batch * 1e6,
        )
    record(f"values {name((batch, n, n))} {dtype} error of ours", epsilons=error)
    benchmark(ops.batched_svdvals, a)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", VECTORS, ids=name)
def test_singular_vectors(benchmark, record, shape, dtype):
    batch, n = shape
    a = torch.randn(batch, n, n, dtype=dtype, device=device())
    u, s, vh = ops.batched_svd(a)
    error = ((u * s[:, None, :]) @ vh - a).norm() / a.norm()
    assert error < 30 * torch.finfo(dtype).eps

    times = side_by_side(
        {
            "torch": lambda: torch.linalg.svd(a, full_matrices=False),
            "ours": lambda: ops.batched_svd(a),
        },
        rounds=3,
        warmup=1,
    )
    for alternative, timing in times.items():
        record(
            f"vectors {name((batch, n, n))} {dtype} {alternative}",
            **timing.row(),
            speedup_over_torch=times["torch"].median / timing.median,
            microseconds_a_matrix=timing.median / batch * 1e6,
        )
    benchmark.pedantic(ops.batched_svd, (a,), rounds=2)


def test_ragged_grid(benchmark, record):
    """Layer pairs of different ranks in one call, against one call a pair, as torch needs it."""
    ranks = torch.tensor([16, 30, 47, 60, 64, 80, 101, 128, 128, 96])
    rows, columns = ranks.repeat_interleave(10), ranks.repeat(10)
    a = torch.randn(100, 128, 128, device=device())

    def separate():
        pairs = zip(rows.tolist(), columns.tolist(), strict=True)
        return [torch.linalg.svdvals(a[b, :m, :n]) for b, (m, n) in enumerate(pairs)]

    values = ops.batched_svdvals(a, rows=rows, columns=columns)
    for found, expected in zip(values, separate(), strict=True):
        torch.testing.assert_close(found[: len(expected)], expected, rtol=1e-4, atol=1e-4)
    times = side_by_side(
        {
            "torch, one call a pair": separate,
            "ours": lambda: ops.batched_svdvals(a, rows=rows, columns=columns),
        },
        rounds=5,
        warmup=1,
    )
    for alternative, timing in times.items():
        speedup = times["torch, one call a pair"].median / timing.median
        record(f"ragged grid, {alternative}", **timing.row(), speedup_over_torch=speedup)
    benchmark(ops.batched_svdvals, a, rows=rows, columns=columns)


def newton_schulz_norm(a: torch.Tensor, steps: int) -> torch.Tensor:
    """‖a‖_* = tr(Pᵀ a), P the polar factor by `steps` of the Newton-Schulz iteration."""
    p = a / torch.linalg.matrix_norm(a)[:, None, None]
    for _ in range(steps):
        p = 1.5 * p - 0.5 * p @ (p.mT @ p)
    return (p * a).sum(dim=(1, 2))


@pytest.mark.parametrize("shape", [(512, 128), (64, 512)], ids=name)
def test_nuclear_norm(benchmark, record, shape):
    """Values alone against the best case of an iteration of matrix products."""
    batch, n = shape
    a = torch.randn(batch, n, n, device=device())
    truth = torch.linalg.svdvals(a[:8].double()).sum(dim=1)
    error = (ops.batched_nuclear_norm(a)[:8].double() - truth).abs() / truth
    assert error.max() < 4 * torch.finfo(a.dtype).eps

    times = side_by_side(
        {
            "torch values": lambda: torch.linalg.svdvals(a).sum(dim=1),
            "torch, 16 Newton-Schulz steps": lambda: newton_schulz_norm(a, 16),
            "ours": lambda: ops.batched_nuclear_norm(a),
        },
        rounds=3,
        warmup=1,
    )
    steps_error = float(((newton_schulz_norm(a[:8], 16).double() - truth).abs() / truth).max())
    for alternative, timing in times.items():
        record(
            f"nuclear norm {name((batch, n, n))}, {alternative}",
            **timing.row(),
            speedup_over_torch=times["torch values"].median / timing.median,
        )
    record(
        f"nuclear norm {name((batch, n, n))}, relative errors",
        ours=float(error.max()),
        newton_schulz=steps_error,
    )
    benchmark(ops.batched_nuclear_norm, a)
