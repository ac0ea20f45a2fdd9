"""Singular values and vectors of many matrices at once, compiled: see `ops`, which exports them.

All functions take real matrices a (B, m, n); float16 and bfloat16 are computed, and returned, in
float32. B, m and n may be 0, strides may be any. `rows` and `columns` (B,) say how much of each
matrix counts: matrix b is ``a[b, :rows[b], :columns[b]]``, whatever lies behind is not read, and
results have zeros there. A matrix with NaN or infinity gets NaN results; the others do not change.

Accuracy: results are those of a matrix that differs from a[b] by at most c ε ‖a[b]‖₂, with ε of the
dtype. So every singular value has an error of at most c ε times the largest one, and values below
that are rounding. The tests hold c to 10 up to 512 columns, and UᵀU, VᵀV to I within 10 ε.
Matrices of equal entries are worse, since their rounding errors have one sign: up to m ε / 3 for m
rows, as from LAPACK.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.checks import FLOATING
from repsim_fast._core.precision import full_precision
from repsim_fast.ops import extension

Lengths = Tensor | Sequence[int]

_ops = torch.ops.repsim_fast


# ---- checks


def _check_matrices(a: Tensor) -> Tensor:
    if not isinstance(a, Tensor):
        raise TypeError(f"a: expected a torch.Tensor, got {type(a).__name__}")
    if a.dtype not in FLOATING:
        raise TypeError(f"a: expected float64, float32, float16 or bfloat16, got {a.dtype}")
    if a.dim() != 3:
        raise ValueError(f"a: expected matrices (B, m, n), got shape {tuple(a.shape)}")
    if a.is_cuda and extension.cuda_missing:
        raise RuntimeError(f"a: is on {a.device}, but {extension.cuda_missing}")
    return a if a.dtype == torch.float64 else a.float()


def _check_lengths(argument: str, lengths: Lengths | None, batch: int, limit: int) -> Tensor | None:
    if lengths is None:
        return None
    if not isinstance(lengths, Tensor):
        lengths = torch.tensor(lengths) if len(lengths) else torch.empty(0, dtype=torch.int64)
    if lengths.dtype != torch.int64:
        raise TypeError(f"{argument}: expected int64 lengths, got {lengths.dtype}")
    if lengths.device.type != "cpu":
        raise RuntimeError(f"{argument}: expected lengths on the CPU, got {lengths.device}")
    if lengths.shape != (batch,):
        raise ValueError(
            f"{argument}: expected one length for each matrix, ({batch},), "
            f"got shape {tuple(lengths.shape)}"
        )
    # The operators check again; values are not known while torch.compile traces.
    if not torch.compiler.is_compiling():
        outside = (lengths < 0) | (lengths > limit)
        if bool(outside.any()):
            first = int(outside.nonzero()[0])
            raise ValueError(
                f"{argument}: expected lengths in 0 .. {limit}, "
                f"got {int(lengths[first])} for matrix {first}"
            )
    return lengths


def _check(
    a: Tensor, rows: Lengths | None, columns: Lengths | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    matrices = _check_matrices(a)
    batch, m, n = matrices.shape
    return (
        matrices,
        _check_lengths("rows", rows, batch, m),
        _check_lengths("columns", columns, batch, n),
    )


# ---- functions


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
    matrices, row_counts, column_counts = _check(a, rows, columns)
    values: Tensor = _ops.batched_svdvals(matrices, row_counts, column_counts)
    return values


def batched_svd(
    a: Tensor,  # (B, m, n)
    *,
    rows: Lengths | None = None,  # (B,)
    columns: Lengths | None = None,  # (B,)
) -> tuple[Tensor, Tensor, Tensor]:
    """Thin singular value decomposition a[b] = U[b] diag(S[b]) Vh[b] of every matrix of a batch.

    One-sided Jacobi where that is fast, LAPACK or cuSOLVER for larger matrices. U always has
    orthonormal columns and Vh orthonormal rows, also where singular values are zero. The sign of
    each pair of vectors, and the basis that belongs to equal singular values, is arbitrary.

    Differentiable, also twice, where each matrix has distinct singular values, and non-zero ones
    unless it is square; elsewhere gradients are infinite or NaN unless the function of U and Vh
    does not depend on the arbitrary choices above and those terms cancel exactly.

    Args:
        a: Matrices (B, m, n), float64, float32, float16 or bfloat16, any strides.
        rows: Rows that count of each matrix, int64 (B,) on the CPU or a sequence; None for all m.
        columns: Columns that count, likewise; None for all n.

    Returns:
        U (B, m, k), S (B, k) descending, Vh (B, k, n) with k = min(m, n); zero behind the lengths
        and behind min(rows[b], columns[b]).

    Raises:
        TypeError, ValueError: as `batched_svdvals`.
        RuntimeError: as `batched_svdvals`, or a matrix, which the message names, did not converge
            in 30 sweeps (the tests' worst needs 15) or in the library.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import batched_svd
        >>> a = torch.randn(5, 4, 3)
        >>> u, s, vh = batched_svd(a)
        >>> torch.allclose(u @ torch.diag_embed(s) @ vh, a, atol=1e-5)
        True

    References:
        Drmač and Veselić, "New fast and accurate Jacobi SVD algorithm", 2008.
    """
    u, s, vh = _ops.batched_svd(*_check(a, rows, columns))
    return u, s, vh


def batched_nuclear_norm(
    a: Tensor,  # (B, m, n)
    *,
    rows: Lengths | None = None,  # (B,)
    columns: Lengths | None = None,  # (B,)
) -> Tensor:
    """Nuclear norm ‖a[b]‖_* = Σ σᵢ of every matrix of a batch: orthogonal Procrustes needs it.

    The sum, in float64, of the values of `batched_svdvals`; its error is at most c ε k σ₁, and
    usually √k smaller. (An iteration of matrix products to the polar factor needs some 50 n³
    operations for small singular values to count, the values 8/3 n³.)

    Differentiable, also twice: the gradient is U Vᵀ, a subgradient where a singular value is zero.

    Args:
        a: Matrices (B, m, n), float64, float32, float16 or bfloat16, any strides.
        rows: Rows that count of each matrix, int64 (B,) on the CPU or a sequence; None for all m.
        columns: Columns that count, likewise; None for all n.

    Returns:
        (B,), float64 for float64, otherwise float32; 0 for an empty matrix.

    Raises:
        TypeError, ValueError, RuntimeError: as `batched_svdvals`.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import batched_nuclear_norm
        >>> batched_nuclear_norm(torch.eye(3)[None])
        tensor([3.])
    """
    norms: Tensor = _ops.batched_nuclear_norm(*_check(a, rows, columns))
    return norms


# ---- what torch needs to know: shapes


def _svdvals_fake(a: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    return a.new_empty((a.shape[0], min(a.shape[1], a.shape[2])))


def _nuclear_norm_fake(a: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    return a.new_empty((a.shape[0],))


def _svd_fake(
    a: Tensor, rows: Tensor | None, columns: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    batch, m, n = a.shape
    k = min(m, n)
    return a.new_empty((batch, m, k)), a.new_empty((batch, k)), a.new_empty((batch, k, n))


# ---- and gradients, in plain torch and `batched_svd`, so that second derivatives need nothing more


def _save_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


@full_precision()
def _svdvals_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    # dσᵢ = uᵢᵀ dA vᵢ
    u, _, vh = _ops.batched_svd(*ctx.saved_tensors)
    return (u * grad[:, None, :]) @ vh, None, None


@full_precision()
def _nuclear_norm_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    u, _, vh = _ops.batched_svd(*ctx.saved_tensors)
    return (u * grad[:, None, None]) @ vh, None, None


def _save_factors(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output, *inputs[1:])


def _counted(lengths: Tensor | None, size: int, like: Tensor) -> Tensor:
    """Ones (B or 1, size) up to each length, zeros behind."""
    if lengths is None:
        return like.new_ones(1, size)
    positions = torch.arange(size, device=like.device)
    return (positions < lengths.to(like.device)[:, None]).to(like.dtype)


@full_precision()
def _svd_backward(
    ctx: Any, u_grad: Tensor, s_grad: Tensor, vh_grad: Tensor
) -> tuple[Tensor, None, None]:
    # With A = U S Vᵀ, X = Uᵀ Gᵤ - Gᵤᵀ U, Y = Vᵀ Gᵥ - Gᵥᵀ V and Eᵢⱼ = sⱼ² - sᵢ²:
    #   G = U ((X/E) S + S (Y/E) + diag(Gₛ)) Vᵀ + (I - U Uᵀ) Gᵤ S⁻¹ Vᵀ + U S⁻¹ Gᵥᵀ (I - V Vᵀ)
    # (Townsend, "Differentiating the singular value decomposition", 2016). What lies behind the
    # lengths is constant: its gradients are dropped, and its zero singular values divide nothing.
    u, s, vh, rows, columns = ctx.saved_tensors
    m, k, n = u.shape[1], s.shape[1], vh.shape[2]
    row_mask, column_mask = _counted(rows, m, s), _counted(columns, n, s)
    mask = row_mask[:, :k] * column_mask[:, :k]
    u_grad = u_grad * row_mask[:, :, None] * mask[:, None, :]
    vh_grad = vh_grad * mask[:, :, None] * column_mask[:, None, :]

    inside = mask[:, :, None] * mask[:, None, :]
    outside = 1 - inside * (1 - torch.eye(k, dtype=s.dtype, device=s.device))
    differences = (s[:, None, :] - s[:, :, None]) * (s[:, None, :] + s[:, :, None])
    e = torch.where(outside > 0, 1, differences)
    inverse = mask / torch.where(mask > 0, s, 1)

    x = u.mT @ u_grad
    y = vh @ vh_grad.mT
    core = (x - x.mT) / e * s[:, None, :] + s[:, :, None] * ((y - y.mT) / e)
    grad = (u @ (core + torch.diag_embed(s_grad * mask))) @ vh
    # Where the factor is square its complement is empty, and only rounding would be divided.
    if m > k or rows is not None or columns is not None:
        tall = (row_mask.sum(1) > mask.sum(1)).to(s.dtype)[:, None, None]
        scaled = u_grad * inverse[:, None, :] * tall
        grad = grad + (scaled - u @ (u.mT @ scaled)) @ vh
    if n > k or rows is not None or columns is not None:
        wide = (column_mask.sum(1) > mask.sum(1)).to(s.dtype)[:, None, None]
        scaled = inverse[:, :, None] * vh_grad * wide
        grad = grad + u @ (scaled - (scaled @ vh.mT) @ vh)
    return grad, None, None


for _name, _fake, _setup, _backward in (
    ("batched_svdvals", _svdvals_fake, _save_input, _svdvals_backward),
    ("batched_nuclear_norm", _nuclear_norm_fake, _save_input, _nuclear_norm_backward),
    ("batched_svd", _svd_fake, _save_factors, _svd_backward),
):
    torch.library.register_fake(f"repsim_fast::{_name}", _fake)
    torch.library.register_autograd(f"repsim_fast::{_name}", _backward, setup_context=_setup)
