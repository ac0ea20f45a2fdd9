"""Singular values of many matrices at once: see `ops`, which exports the function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.precision import full_precision
from repsim_fast.ops.svd.matrices import Lengths, check_lengths_on_cpu, save_input, svd_arguments

_ops = torch.ops.repsim_fast


def batched_svdvals(
    a: Tensor,  # (B, m, n)
    *,
    rows: Lengths | None = None,  # (B,)
    columns: Lengths | None = None,  # (B,)
) -> Tensor:
    """Singular values of every matrix of a batch, in descending order.

    Householder bidiagonalisation, then bisection on Sturm counts: a fixed number of steps for any
    input, so this function always ends and has no failure to converge. Values below ε/2 times the
    largest may come out as exactly 0.

    Differentiable, also twice: the gradient is U diag(g) Vᵀ (`batched_svd` is called for it). It is
    the derivative where the singular values are distinct and not zero, a choice among the
    directional derivatives elsewhere.

    Args:
        a: Matrices (B, m, n), float64, float32, float16 or bfloat16, any strides.
        rows: Rows that count of each matrix, int64 (B,) on the CPU or a sequence; None for all m.
        columns: Columns that count, likewise; None for all n.

    Returns:
        (B, min(m, n)), float64 for float64, otherwise float32; 0 behind min(rows[b], columns[b]).

    Raises:
        TypeError: ``a`` is no floating-point tensor, or lengths are not int64.
        ValueError: ``a`` has not three dimensions, or lengths have another shape or lie outside
            the matrix.
        RuntimeError: ``a`` is on a GPU and this build has no CUDA kernels, or lengths are.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import batched_svdvals
        >>> batched_svdvals(torch.diag_embed(torch.tensor([[3.0, 4.0]])))
        tensor([[4., 3.]])

    References:
        Golub and Kahan, "Calculating the singular values and pseudo-inverse of a matrix", 1965.
        Demmel, Dhillon and Ren, "On the correctness of some bisection-like parallel eigenvalue
        algorithms in floating point arithmetic", 1995.
    """
    matrices, row_counts, column_counts = svd_arguments(a, rows, columns)
    values: Tensor = _ops.batched_svdvals(matrices, row_counts, column_counts)
    return values


@torch.library.register_fake("repsim_fast::batched_svdvals")  # type: ignore[untyped-decorator]
def _fake(a: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    check_lengths_on_cpu(rows, columns)
    return a.new_empty((a.shape[0], min(a.shape[1], a.shape[2])))


@full_precision()
def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    # dσᵢ = uᵢᵀ dA vᵢ, in plain torch and `batched_svd`: second derivatives need nothing more.
    u, _, vh = _ops.batched_svd(*ctx.saved_tensors)
    return (u * grad[:, None, :]) @ vh, None, None


torch.library.register_autograd("repsim_fast::batched_svdvals", _backward, setup_context=save_input)
