"""Products of the features of two layers, against torch's and NumPy's matrix product."""

from __future__ import annotations

import pytest
import torch
from timing import side_by_side

from repsim_fast.ops import cross_gram


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("n", "p", "q"), [(2000, 128, 128), (2000, 512, 512), (2000, 1280, 1280)])
def test_cross_gram(benchmark, record, n, p, q, dtype):
    x, y = torch.randn(n, p, dtype=dtype), torch.randn(n, q, dtype=dtype)
    a, b = x.numpy(), y.numpy()
    truth = x.double().T @ y.double()
    error = float((cross_gram(x, y) - truth).abs().max())
    assert error <= 2 * float((x.T @ y - truth).abs().max()) + 1e-10
    times = side_by_side(
        {
            "repsim_fast": lambda: cross_gram(x, y),
            "torch": lambda: x.T @ y,
            "numpy": lambda: a.T @ b,
        }
    )
    for name, timing in times.items():
        record(
            f"{n}x{p}, {n}x{q} {str(dtype).removeprefix('torch.')} {name}",
            **timing.row(),
            speedup=timing.median / times["repsim_fast"].median,
            gflops=2 * n * p * q / timing.median / 1e9,
        )
    benchmark(lambda: cross_gram(x, y))
