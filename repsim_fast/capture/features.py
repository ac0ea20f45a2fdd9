"""From what a layer returns to a matrix of features, one row a sample."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from repsim_fast.capture.masks import TokenMask

Channels: TypeAlias = Literal["first", "last"]
"""Where the channels are: (N, C, ...) or (N, ..., C)."""


def first_tensor(output: object) -> Tensor | None:
    """The first floating-point tensor in a layer's output, or None.

    Tuples, lists, mappings (also the outputs of Hugging Face models) and dataclasses are searched
    in order and in depth: the hidden state of an LSTM or attention layer comes before its extras.
    Quantised tensors count with the numbers that they stand for.
    """
    if isinstance(output, Tensor):
        if output.is_quantized:
            return output.dequantize()
        return output if output.is_floating_point() else None
    for part in _parts(output):
        if (tensor := first_tensor(part)) is not None:
            return tensor
    return None


def _parts(output: object) -> Iterable[object]:
    if isinstance(output, Mapping):
        return output.values()
    if isinstance(output, (tuple, list)):
        return output
    if is_dataclass(output) and not isinstance(output, type):
        return [getattr(output, field.name, None) for field in fields(output)]
    return ()


def flatten(x: Tensor) -> Tensor:
    """(N, ...) to (N, p), features in the order of the indices; a scalar is one of one sample."""
    return x.flatten(1) if x.ndim > 1 else x.reshape(-1, 1)


def samples_first(x: Tensor) -> Tensor:
    """(N, ...) with each sample's features in one piece of memory, in the order of memory.

    ``channels_last`` maps come in another order instead of being copied. Enough for what does not
    depend on the order, such as a Gram matrix. Dimensions that need no change stay as they are,
    which saves a view for every layer of every batch.
    """
    if x.ndim <= 2:
        return flatten(x)
    if x.is_contiguous():
        return x
    order = sorted(range(1, x.ndim), key=x.stride, reverse=True)
    return x.permute(0, *order).flatten(1)


def pool(x: Tensor, channels: Channels) -> Tensor:
    """Mean over positions: (N, C, ...) or (N, ..., C) to (N, C); of half precision in float32,
    which has the digits that an average of many gains."""
    if x.ndim <= 2:
        return flatten(x)
    wide = torch.promote_types(x.dtype, torch.float32)
    if channels == "first":
        return x.flatten(2).mean(2, dtype=wide)
    return x.flatten(1, -2).mean(1, dtype=wide)


def positions(x: Tensor, channels: Channels) -> Tensor:
    """Positions as samples: (N, C, ...) or (N, ..., C) to (N * positions, C)."""
    if x.ndim <= 2:
        return flatten(x)
    return (x.movedim(1, -1) if channels == "first" else x).flatten(0, -2)


def real_tokens(
    x: Tensor,  # (N, T, D)
    mask: TokenMask,
) -> Tensor:
    """Each real token as a sample, (n, D)."""
    return x[mask.tokens]


def mean_of_tokens(
    x: Tensor,  # (N, T, D)
    mask: TokenMask,
) -> Tensor:
    """Mean over the real tokens of each sample, (N, D); of half precision in float32."""
    # Filled, not multiplied: padding may hold NaN.
    wide = torch.promote_types(x.dtype, torch.float32)
    total = x.masked_fill(~mask.tokens[..., None], 0).sum(1, dtype=wide)
    return total / mask.counts[:, None]


def first_token(
    x: Tensor,  # (N, T, D)
    mask: TokenMask,
) -> Tensor:
    """The first real token of each sample, (N, D)."""
    return x[torch.arange(len(x), device=x.device), mask.first]


def last_token(
    x: Tensor,  # (N, T, D)
    mask: TokenMask,
) -> Tensor:
    """The last real token of each sample, (N, D)."""
    return x[torch.arange(len(x), device=x.device), mask.last]
