"""Centred Gram against `x @ x.T` plus centring in careful plain torch, in the same run.

Bound: n²p multiplications-and-additions / 2 of them for one triangle, and n p elements read once.
"""

from __future__ import annotations

import pytest
import torch
from timing import side_by_side

from repsim_fast import ops
from repsim_fast.ops.reference import gram as reference

SHAPES = [(128, 65536), (512, 16384), (2048, 8192), (128, 4096)]


def plain_torch(x: torch.Tensor) -> torch.Tensor:
    """U-centred Gram with as few passes as torch allows; the feature means are left in."""
    n = x.shape[0]
    gram = x @ x.T
    gram.fill_diagonal_(0)
    rows = gram.sum(dim=1) / (n - 2)
    gram -= rows[:, None]
    gram -= rows[None, :]
    gram += rows.sum() / (n - 1)
    return gram.fill_diagonal_(0)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: f"{shape[0]}x{shape[1]}")
def test_centered_gram(benchmark, record, shape):
    n, p = shape
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = torch.randn(n, p, device=device)
    truth = reference.centered_gram(x.double())
    for precision, tolerance in (("float32", 1e-5), ("bfloat16", 2.0**-8)):
        gram = ops.centered_gram(x, precision=precision)
        error = float((gram - truth).norm() / truth.norm())
        assert error < tolerance, f"{precision}: {error:.1e}"

    times = side_by_side(
        {
            "plain torch": lambda: plain_torch(x),
            "float32": lambda: ops.centered_gram(x),
            "float32 packed": lambda: ops.centered_gram(x, packed=True),
            "bfloat16 packed": lambda: ops.centered_gram(x, packed=True, precision="bfloat16"),
        }
    )
    plain = times["plain torch"].median
    for name, timing in times.items():
        record(
            f"{n}x{p} {name}",
            **timing.row(),
            speedup_over_plain_torch=plain / timing.median,
            gflops=n * n * p / timing.median / 1e9,
        )
    benchmark(ops.centered_gram, x)
