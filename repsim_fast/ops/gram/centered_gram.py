"""Centred Gram of features: see `ops`, which exports the function."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from repsim_fast import _C
from repsim_fast._core.checks import check_choice, check_matrix
from repsim_fast._core.precision import full_precision
from repsim_fast.ops.centering import (
    CENTERINGS,
    MIN_SAMPLES,
    Centering,
    center_gram,
    packed_size,
    unpack_gram,
)
from repsim_fast.ops.checks import check_compiled, check_same_device

Precision = Literal["float64", "float32", "tf32", "bfloat16"]

_ops = torch.ops.repsim_fast


def resolve_precision(x: Tensor, precision: Precision | None) -> Precision:
    """The precision that ``None`` stands for; raises what `centered_gram` raises of it."""
    if x.dtype == torch.float64:
        if precision not in (None, "float64"):
            raise ValueError(
                f"precision: expected None or 'float64' for float64 features, got {precision!r}"
            )
        return "float64"
    check_choice("precision", precision, (None, "float32", "tf32", "bfloat16"))
    if precision == "tf32" and not x.is_cuda:
        raise ValueError(f"precision: 'tf32' exists on CUDA only, got a tensor on {x.device}")
    return precision or "float32"


def products_in(x: Tensor, precision: Precision | None) -> str:
    """What `centered_gram` multiplies in: the precision asked for, or what is better on the CPU."""
    resolved = resolve_precision(x, precision)
    if resolved == "bfloat16" and x.is_cpu:
        return {"amx": "bfloat16", "avx512_vnni": "int16"}.get(_C.simd_level(), "float32")
    return resolved


def centered_gram(
    x: Tensor,  # (n, p)
    *,
    centering: Centering = "unbiased",
    packed: bool = False,
    precision: Precision | None = None,
    out: Tensor | None = None,
) -> Tensor:
    """Gram matrix of n samples, centred for HSIC and CKA, in one pass over the features.

    With X the features after removing each feature's mean, and K = X Xᵀ:

    - ``"none"``: x xᵀ of the features as they are
    - ``"features"``: K
    - ``"double"``: H K H with H = I - 11ᵀ/n; ``<HKH, HLH> / (n-1)²`` is the biased HSIC
    - ``"unbiased"``: U-centred K with a zero diagonal;
      ``<U_K, U_L> / (n(n-3))`` is the unbiased HSIC₁

    Feature means go before any product (on the CPU means of some samples, and what is left of them
    with the centring), so that features with a mean far from zero keep their accuracy. Only the
    lower triangle is computed. Differentiable in ``x``, also twice.

    Args:
        x: Features (n, p), float64, float32, float16 or bfloat16, any strides.
        centering: What is removed from the Gram, as above.
        packed: Return the lower triangle as a vector whose inner products are those of the full
            matrices: off-diagonal entries times √2, row by row; without the diagonal for
            ``"unbiased"`` (n(n-1)/2 entries), with it for the others (n(n+1)/2).
        precision: Precision of the products: None for float64 features in float64 and all others
            in float32; ``"tf32"`` and ``"bfloat16"`` round the centred features to these and
            accumulate in float32. A CPU does so in its tiles (AMX); one without them is more
            exact: with AVX512-VNNI it multiplies 16-bit integers in units of each sample's norm
            over a block of features, with exact sums (rounding about a tenth of bfloat16's), and
            else float32. `products_in` says which.
        out: Contiguous tensor of the result's shape, dtype and device to write to, such as a row
            of a matrix of packed Grams. Not differentiable.

    Returns:
        (n, n) symmetric, or the packed vector; float64 for float64 features, otherwise float32.
        ``out`` itself if given.

    Raises:
        TypeError: ``x`` is not a floating-point tensor.
        ValueError: ``x`` is not a matrix, has fewer samples than the centring needs (4 for
            ``"unbiased"``), or a word is unknown.
        RuntimeError: ``x`` is on a GPU and this build has no CUDA kernels, or on another device
            than CPU and GPU; ``out`` does not fit or a gradient is wanted.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import centered_gram
        >>> gram = centered_gram(torch.randn(8, 100), packed=True)
        >>> gram.shape
        torch.Size([28])

    References:
        Gretton et al., "Measuring statistical dependence with Hilbert-Schmidt norms", 2005.
        Székely and Rizzo, "Partial distance correlation with methods for dissimilarities", 2014.
        Song et al., "Feature selection via dependence maximization", 2012, eq. 5.
    """
    check_matrix("x", x)
    check_choice("centering", centering, CENTERINGS)
    if x.shape[0] < MIN_SAMPLES[centering]:
        raise ValueError(
            f"x: centering {centering!r} needs at least {MIN_SAMPLES[centering]} samples, "
            f"got {x.shape[0]}"
        )
    resolved = resolve_precision(x, precision)
    check_compiled("x", x)
    if out is None:
        gram: Tensor = _ops.centered_gram(x, centering, packed, resolved)
        return gram
    check_same_device(x=x, out=out)
    if torch.is_grad_enabled() and (x.requires_grad or out.requires_grad):
        raise RuntimeError("out: expected no tensor that requires a gradient, or no_grad")
    _ops.centered_gram_out(x, centering, packed, resolved, out)
    return out


@torch.library.register_fake("repsim_fast::centered_gram")  # type: ignore[untyped-decorator]
def _fake(x: Tensor, centering: str, packed: bool, precision: str) -> Tensor:
    n = x.shape[0]
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    if not packed:
        return x.new_empty((n, n), dtype=dtype)
    return x.new_empty((packed_size(n, centering),), dtype=dtype)


@torch.library.register_fake("repsim_fast::centered_gram_out")  # type: ignore[untyped-decorator]
def _out_fake(x: Tensor, centering: str, packed: bool, precision: str, out: Tensor) -> None:
    check_same_device(x=x, out=out)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, ctx.centering, ctx.packed, _ = inputs
    ctx.save_for_backward(x)


@full_precision()
def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
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


torch.library.register_autograd("repsim_fast::centered_gram", _backward, setup_context=_save)
