"""Arguments of the functions of singular values, checked, and what their gradients share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from repsim_fast.ops.checks import check_compiled, check_matrices

Lengths = Tensor | Sequence[int]


def svd_arguments(
    a: Tensor, rows: Lengths | None, columns: Lengths | None
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The arguments of the operators: matrices in float32 or float64, and int64 lengths."""
    check_matrices(a)
    check_compiled("a", a)
    batch, m, n = a.shape
    return (
        a if a.dtype == torch.float64 else a.float(),
        _check_lengths("rows", rows, batch, m),
        _check_lengths("columns", columns, batch, n),
    )


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


def check_lengths_on_cpu(rows: Tensor | None, columns: Tensor | None) -> None:
    """What a fake kernel checks: that it was not called for the device of the lengths."""
    for argument, lengths in (("rows", rows), ("columns", columns)):
        if lengths is not None and not lengths.is_cpu:
            raise RuntimeError(f"{argument}: expected lengths on the CPU, got {lengths.device}")


def save_input(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Keeps matrices and lengths for the gradient of something that has no vectors itself."""
    ctx.save_for_backward(*inputs)
