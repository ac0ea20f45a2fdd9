"""Eigenvectors of many symmetric matrices at once: see `ops`, which exports the function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.precision import full_precision
from repsim_fast.ops.checks import check_matrices

_ops = torch.ops.repsim_fast


def batched_eigh(
    a: Tensor,  # (B, n, n)
) -> tuple[Tensor, Tensor]:
    """Eigenvalues and eigenvectors of every symmetric matrix of a batch, values rising.

    a[b] = V[b] diag(w[b]) V[b]ᵀ, from the lower triangles. By LAPACK, on the CPU one matrix a
    thread, where `torch.linalg.eigh` takes one after the other with all threads; on a GPU by
    torch's function. Differentiable, also twice, where the eigenvalues are distinct; parts of the
    gradient that belong to equal ones are left out, which is right for functions that do not
    depend on the basis chosen for them.

    Args:
        a: Symmetric matrices (B, n, n), float64, float32, float16 or bfloat16, any strides.

    Returns:
        w (B, n) and V (B, n, n) with eigenvectors in columns; float64 for float64, otherwise
        float32.

    Raises:
        TypeError: ``a`` is no floating-point tensor.
        ValueError: ``a`` is not (B, n, n).
        RuntimeError: A matrix, which the message names, has NaN or infinity or did not converge.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import batched_eigh
        >>> batched_eigh(torch.diag_embed(torch.tensor([[4.0, 3.0]])))[0]
        tensor([[3., 4.]])
    """
    check_matrices(a, square=True)
    values, vectors = _ops.batched_eigh(a if a.dtype == torch.float64 else a.float())
    return values, vectors


@torch.library.register_fake("repsim_fast::batched_eigh")  # type: ignore[untyped-decorator]
def _fake(a: Tensor) -> tuple[Tensor, Tensor]:
    return a.new_empty(a.shape[:2]), a.new_empty(a.shape)


def _cuda(a: Tensor) -> tuple[Tensor, Tensor]:
    # Whether cuSOLVER notices depends on the routine that torch chooses by size.
    broken = ~a.tril().isfinite().flatten(1).all(dim=1)
    if bool(broken.any()):
        raise RuntimeError(f"batched_eigh: matrix {int(broken.nonzero()[0])} is not finite")
    values, vectors = torch.linalg.eigh(a)
    return values, vectors.contiguous()


torch.library.register_kernel("repsim_fast::batched_eigh", "cuda", _cuda)


def _save(ctx: Any, inputs: tuple[Tensor], output: tuple[Tensor, Tensor]) -> None:
    ctx.save_for_backward(*output)


@full_precision()
def _backward(ctx: Any, values_grad: Tensor, vectors_grad: Tensor) -> Tensor:
    # dwᵢ = vᵢᵀ dA vᵢ and dV = V (F * Vᵀ dA V) with Fᵢⱼ = 1 / (wⱼ - wᵢ), i ≠ j
    values, vectors = ctx.saved_tensors
    apart = values[:, None, :] - values[:, :, None]
    inverse = torch.where(apart == 0, 0, 1 / torch.where(apart == 0, 1, apart))
    core = torch.diag_embed(values_grad) + inverse * (vectors.mT @ vectors_grad)
    gradient: Tensor = vectors @ core @ vectors.mT
    return (gradient + gradient.mT) / 2


torch.library.register_autograd("repsim_fast::batched_eigh", _backward, setup_context=_save)
