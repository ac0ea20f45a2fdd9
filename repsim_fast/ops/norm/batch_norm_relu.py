"""Batch norm and ReLU in one: see `ops`, which exports the function."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from repsim_fast._core.checks import check_matrix
from repsim_fast.ops.checks import check_same_device

_ops = torch.ops.repsim_fast
_FAST = (torch.float32, torch.bfloat16)
Moments = tuple[Tensor, Tensor]


def batch_norm_relu(
    x: Tensor,  # (n, c)
    weight: Tensor,  # (c,)
    bias: Tensor,  # (c,)
    moments: Moments | None = None,
    *,
    eps: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """max(0, (x - mean) weight / sqrt(variance + eps) + bias) of each channel, and both moments.

    On the CPU in one pass over ``x`` after that of the moments, and its gradient likewise after
    that of the sums, where torch's two functions take a pass more each; moments and sums are added
    in float64. On a GPU torch's functions. Differentiable, also twice; the moments that are
    returned are constants.

    Args:
        x: Features (n, c), float32 or bfloat16. Maps with channels last are such a matrix.
        weight: Float32, as all below.
        bias: Of each channel.
        moments: Mean and variance to normalise by, constants; default those of ``x``.
        eps: Added to the variance.

    Returns:
        The rectified norm in the dtype of ``x``, mean and (biased) variance.

    Raises:
        TypeError: ``x`` is neither float32 nor bfloat16, or another argument not float32.
        ValueError: ``x`` is no matrix or has no rows, or a single one to take moments of, or
            another argument is not (c,).
        RuntimeError: Arguments are on several devices.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import batch_norm_relu
        >>> x = torch.tensor([[-1.0], [1.0]])
        >>> y, mean, variance = batch_norm_relu(x, torch.ones(1), torch.zeros(1), eps=0.0)
        >>> y.tolist(), float(mean), float(variance)
        ([[0.0], [1.0]], 0.0, 1.0)
    """
    check_matrix("x", x)
    if x.dtype not in _FAST:
        raise TypeError(f"x: expected float32 or bfloat16, got {x.dtype}")
    fewest = 2 if moments is None else 1  # of one row the norm is 0
    if len(x) < fewest:
        raise ValueError(f"x: expected at least {fewest} rows, got {len(x)}")
    named = {"weight": weight, "bias": bias}
    if moments is not None:
        named |= {"mean": moments[0], "variance": moments[1]}
    for name, vector in named.items():
        if vector.dtype != torch.float32:
            raise TypeError(f"{name}: expected float32, got {vector.dtype}")
        if vector.shape != x.shape[1:]:
            raise ValueError(
                f"{name}: expected shape ({x.shape[1]},), got shape {tuple(vector.shape)}"
            )
    check_same_device(x=x, **named)
    mean, variance = (None, None) if moments is None else (m.detach() for m in moments)
    found: tuple[Tensor, Tensor, Tensor] = _ops.batch_norm_relu(
        x, weight, bias, mean, variance, eps
    )
    return found


@torch.library.register_fake("repsim_fast::batch_norm_relu")  # type: ignore[untyped-decorator]
def _fake(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Any, variance: Any, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    return x.new_empty(x.shape), torch.empty_like(weight), torch.empty_like(weight)


@torch.library.register_fake(  # type: ignore[untyped-decorator]
    "repsim_fast::batch_norm_relu_backward"
)
def _fake_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor,
    eps: float, constant: bool, input_only: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return x.new_empty(x.shape), torch.empty_like(weight), torch.empty_like(weight)


def _by_torch(
    x: Tensor, weight: Tensor, bias: Tensor, moments: Moments | None, eps: float
) -> Tensor:
    of_batch = moments is None
    mean, variance = moments or (None, None)
    y = functional.batch_norm(x, mean, variance, weight, bias, training=of_batch, eps=eps)
    return torch.relu(y)


def _cuda(
    x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor | None, variance: Tensor | None,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    moments = None if mean is None or variance is None else (mean, variance)
    y = _by_torch(x, weight, bias, moments, eps)
    if moments is None:
        spread, middle = torch.var_mean(x.float(), 0, correction=0)
        return y, middle, spread
    return y, moments[0].clone(), moments[1].clone()


def _cuda_backward(
    grad: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor,
    eps: float, constant: bool, input_only: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    moments = (mean, variance) if constant else None
    found: tuple[Tensor, Tensor, Tensor] = torch.func.vjp(
        lambda *of: _by_torch(of[0], of[1], of[2], moments, eps), x, weight, bias
    )[1](grad)
    return found


torch.library.register_kernel("repsim_fast::batch_norm_relu", "cuda", _cuda)
torch.library.register_kernel("repsim_fast::batch_norm_relu_backward", "cuda", _cuda_backward)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, mean, _, eps = inputs
    ctx.constant, ctx.eps = mean is not None, eps
    ctx.mark_non_differentiable(*output[1:])
    ctx.save_for_backward(x, weight, bias, *output[1:])


def _backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, variance = ctx.saved_tensors
    if torch.is_grad_enabled():  # to be differentiated again
        moments = (mean, variance) if ctx.constant else None
        y = _by_torch(x, weight, bias, moments, ctx.eps)
        wanted = [of for of in (x, weight, bias) if of.requires_grad]
        found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
        gradients = [next(found) if of.requires_grad else None for of in (x, weight, bias)]
        return (*gradients, None, None, None)
    of_weights = any(ctx.needs_input_grad[1:3])
    gradients = _ops.batch_norm_relu_backward(
        grad, x, weight, bias, mean, variance, ctx.eps, ctx.constant, not of_weights
    )
    return (*(gradients if of_weights else (gradients[0], None, None)), None, None, None)


torch.library.register_autograd("repsim_fast::batch_norm_relu", _backward, setup_context=_save)
