"""Nuclear norms of many matrices at once: see `ops`, which exports the function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.precision import full_precision
from repsim_fast.ops.svd.matrices import Lengths, check_lengths_on_cpu, save_input, svd_arguments

_ops = torch.ops.repsim_fast


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
    norms: Tensor = _ops.batched_nuclear_norm(*svd_arguments(a, rows, columns))
    return norms


@torch.library.register_fake("repsim_fast::batched_nuclear_norm")  # type: ignore[untyped-decorator]
def _fake(a: Tensor, rows: Tensor | None, columns: Tensor | None) -> Tensor:
    check_lengths_on_cpu(rows, columns)
    return a.new_empty((a.shape[0],))


@full_precision()
def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
    u, _, vh = _ops.batched_svd(*ctx.saved_tensors)
    return (u * grad[:, None, None]) @ vh, None, None


torch.library.register_autograd(
    "repsim_fast::batched_nuclear_norm", _backward, setup_context=save_input
)
