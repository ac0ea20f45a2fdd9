"""Checks that several operators share: where tensors lie, and batches of matrices."""

from __future__ import annotations

from torch import Tensor

from repsim_fast._core.checks import FLOATING
from repsim_fast.ops import extension
from repsim_fast.ops.cards import card_missing_for


def check_compiled(argument: str, x: Tensor) -> None:
    """Raises RuntimeError where the operators have no kernels for the device of `x`."""
    if x.is_cpu or x.is_meta:
        return
    if not x.is_cuda:
        raise RuntimeError(f"{argument}: expected a tensor on CPU or CUDA, got {x.device}")
    if extension.cuda_missing:
        raise RuntimeError(f"{argument}: is on {x.device}, but {extension.cuda_missing}")
    check_card(argument, x)


def check_card(argument: str, x: Tensor) -> None:
    """Raises RuntimeError where `x` is on a card that the kernels of this build do not run on."""
    if x.is_cuda and not extension.cuda_missing and (missing := card_missing_for(x)):
        raise RuntimeError(f"{argument}: is on {x.device}, but {missing}")


def check_same_device(**tensors: Tensor | None) -> None:
    """Raises RuntimeError unless all tensors given by name are on the device of the first.

    torch itself lets a meta tensor among others pass: the fake kernel then answers, with memory
    that nobody has written.
    """
    (leader, first), *others = tensors.items()
    for argument, tensor in others:
        if tensor is not None and first is not None and tensor.device != first.device:
            raise RuntimeError(
                f"{argument}: expected a tensor on {first.device} as {leader}, got {tensor.device}"
            )


def check_matrices(a: Tensor, *, square: bool = False) -> None:
    """Raises TypeError or ValueError unless `a` is a floating batch (B, m, n), or (B, n, n)."""
    if not isinstance(a, Tensor):
        raise TypeError(f"a: expected a torch.Tensor, got {type(a).__name__}")
    if a.dtype not in FLOATING:
        raise TypeError(f"a: expected float64, float32, float16 or bfloat16, got {a.dtype}")
    if square and (a.dim() != 3 or a.shape[1] != a.shape[2]):
        raise ValueError(f"a: expected square matrices (B, n, n), got shape {tuple(a.shape)}")
    if a.dim() != 3:
        raise ValueError(f"a: expected matrices (B, m, n), got shape {tuple(a.shape)}")
