"""Eigenvectors of many symmetric matrices, against torch's function."""

from __future__ import annotations

import pytest
import torch
from timing import side_by_side

from repsim_fast.ops import batched_eigh


@pytest.mark.parametrize(("batch", "n"), [(200, 64), (100, 128), (10, 512)])
def test_batched_eigh(benchmark, record, batch, n):
    x = torch.randn(batch, n, n)
    a = x @ x.mT / n
    torch.testing.assert_close(
        batched_eigh(a)[0], torch.linalg.eigvalsh(a.double()).float(), atol=1e-4, rtol=0
    )
    times = side_by_side(
        {"repsim_fast": lambda: batched_eigh(a), "torch": lambda: torch.linalg.eigh(a)}, rounds=5
    )
    for name, timing in times.items():
        speedup = timing.median / times["repsim_fast"].median
        record(f"({batch}, {n}, {n}) {name}", **timing.row(), speedup=speedup)
    benchmark(lambda: batched_eigh(a))
