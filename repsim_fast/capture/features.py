"""From what a layer returns to a matrix of features, one row a sample."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from torch import Tensor

Maps: TypeAlias = 'Literal["flatten", "pool", "positions"] | Callable[[Tensor], Tensor]'
"""How activations of more than two dimensions become a matrix; a callable does it itself."""


def first_tensor(output: object) -> Tensor | None:
    """The first floating-point tensor in a layer's output, or None.

    Tuples, lists and mappings (also the outputs of Hugging Face models) are searched in order and
    in depth: the hidden state of an LSTM or attention layer comes before its extras. Quantised
    tensors count with the numbers that they stand for.
    """
    if isinstance(output, Tensor):
        if output.is_quantized:
            return output.dequantize()
        return output if output.is_floating_point() else None
    parts = output.values() if isinstance(output, Mapping) else output
    if isinstance(output, (Mapping, tuple, list)):
        for part in parts:  # type: ignore[attr-defined]
            if (tensor := first_tensor(part)) is not None:
                return tensor
    return None


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


def pool(x: Tensor) -> Tensor:
    """Mean over positions: maps (N, C, ...) to (N, C), tokens (N, T, D) to (N, D)."""
    if x.ndim <= 2:
        return flatten(x)
    return x.mean(1) if x.ndim == 3 else x.flatten(2).mean(2)


def positions(x: Tensor) -> Tensor:
    """Positions as samples: maps (N, C, H, W) to (N*H*W, C), tokens (N, T, D) to (N*T, D)."""
    if x.ndim <= 2:
        return flatten(x)
    return (x if x.ndim == 3 else x.movedim(1, -1)).flatten(0, -2)


_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "flatten": flatten,
    "pool": pool,
    "positions": positions,
}


def feature_map(maps: Maps, *, any_order: bool = False) -> Callable[[Tensor], Tensor]:
    """The function behind the ``maps`` argument.

    Args:
        maps: "flatten", "pool", "positions" or a callable (Tensor) -> (n, p).
        any_order: The order of the features does not matter, and they may have several dimensions:
            "flatten" is then ``samples_first``.
    """
    if callable(maps):
        return maps
    if maps not in _MAPS:
        raise ValueError(f"maps must be {', '.join(map(repr, _MAPS))} or a callable, got {maps!r}")
    return samples_first if any_order and maps == "flatten" else _MAPS[maps]
