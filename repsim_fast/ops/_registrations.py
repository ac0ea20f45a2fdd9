"""What torch needs to know of each operator besides its kernels: shapes and gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.precision import full_precision
from repsim_fast.ops import extension  # noqa: F401  (defines the operators)
from repsim_fast.ops.reference.gram import center_gram, unpack_gram


@torch.library.register_fake("repsim_fast::centered_gram")  # type: ignore[untyped-decorator]
def _centered_gram_fake(x: Tensor, centering: str, packed: bool, precision: str) -> Tensor:
    n = x.shape[0]
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if not packed:
        return x.new_empty((n, n), dtype=dtype)
    size = n * (n - 1) // 2 if centering == "unbiased" else n * (n + 1) // 2
    return x.new_empty((size,), dtype=dtype)


@torch.library.register_fake("repsim_fast::centered_gram_out")  # type: ignore[untyped-decorator]
def _centered_gram_out_fake(
    x: Tensor, centering: str, packed: bool, precision: str, out: Tensor
) -> None:
    return None


def _centered_gram_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.centering, ctx.packed, _ = inputs
    ctx.save_for_backward(x)


@full_precision()
def _centered_gram_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
    # Centring is a self-adjoint projection C of symmetric matrices, hence the gradient with
    # respect to K is C(G), G symmetrised, and with respect to X of K = X Xᵀ it is 2 C(G) X.
    # Plain torch, so that second derivatives need nothing more.
    (x,) = ctx.saved_tensors
    gram_grad = unpack_gram(grad, x.shape[0], ctx.centering) if ctx.packed else grad
    gram_grad = center_gram((gram_grad + gram_grad.T) / 2, ctx.centering)
    wide = x.to(grad.dtype)
    if ctx.centering == "none":
        return (2 * gram_grad @ wide).to(x.dtype), None, None, None
    x_grad = 2 * gram_grad @ (wide - wide.mean(dim=0))
    return (x_grad - x_grad.mean(dim=0)).to(x.dtype), None, None, None


torch.library.register_autograd(
    "repsim_fast::centered_gram", _centered_gram_backward, setup_context=_centered_gram_setup
)
