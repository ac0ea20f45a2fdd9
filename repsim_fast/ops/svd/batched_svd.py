"""Singular value decompositions of many matrices at once: see `ops`, which exports the function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.precision import full_precision
from repsim_fast.ops.svd.matrices import Lengths, check_lengths_on_cpu, svd_arguments

_ops = torch.ops.repsim_fast


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
    u, s, vh = _ops.batched_svd(*svd_arguments(a, rows, columns))
    return u, s, vh


@torch.library.register_fake("repsim_fast::batched_svd")  # type: ignore[untyped-decorator]
def _fake(a: Tensor, rows: Tensor | None, columns: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    check_lengths_on_cpu(rows, columns)
    batch, m, n = a.shape
    k = min(m, n)
    return a.new_empty((batch, m, k)), a.new_empty((batch, k)), a.new_empty((batch, k, n))


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output, *inputs[1:])


def _counted(lengths: Tensor | None, size: int, like: Tensor) -> Tensor:
    """Ones (B or 1, size) up to each length, zeros behind."""
    if lengths is None:
        return like.new_ones(1, size)
    positions = torch.arange(size, device=like.device)
    return (positions < lengths.to(like.device)[:, None]).to(like.dtype)


@full_precision()
def _backward(
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


torch.library.register_autograd("repsim_fast::batched_svd", _backward, setup_context=_save)
