"""Argument checks of the public functions: every message names argument, wanted and got."""

from __future__ import annotations

import math
import operator
from collections.abc import Collection
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from torch import Tensor

FLOATING = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_choice(argument: str, value: object, choices: Collection[object]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        wanted = ", ".join(map(repr, choices))
        raise ValueError(f"{argument}: expected one of {wanted}, got {value!r}")


def check_whole(**values: object) -> None:
    """Raises TypeError unless each value is a whole number, by its argument's name."""
    for argument, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool):
            raise TypeError(f"{argument} must be a whole number, got {value!r}")


def check_seed(seed: object) -> int:
    """Raises TypeError or ValueError unless `seed` is a whole number that all generators take.

    Those of torch take some more, but what follows from a seed is counted modulo this.
    """
    if isinstance(seed, bool) or not hasattr(seed, "__index__"):
        raise TypeError(f"seed must be an integer, got {type(seed).__name__}")
    number = operator.index(seed)
    if not 0 <= number < 2**63:
        raise ValueError(f"seed must lie in 0 .. 2**63 - 1, got {number}")
    return number


def check_number(argument: str, value: object, *, positive: bool = False) -> None:
    """Raises TypeError or ValueError unless `value` is a finite number, at least or above 0."""
    if not isinstance(value, Real) or isinstance(value, bool):
        raise TypeError(f"{argument} must be a number, got {value!r}")
    number = float(value)
    if not (number > 0 if positive else number >= 0) or not number < math.inf:
        kind = "positive" if positive else "non-negative"
        raise ValueError(f"{argument} must be {kind} and finite, got {value}")


def check_autocast(dtype: torch.dtype | None) -> None:
    """Raises ValueError unless `dtype` is None or one that autocast takes on every device."""
    choices = (torch.bfloat16, torch.float16)
    if dtype is not None and dtype not in choices:
        wanted = ", ".join(map(str, choices))
        raise ValueError(f"autocast: expected {wanted} or None, got {dtype!r}")


def check_matrix(argument: str, x: Tensor) -> None:
    """Raises TypeError or ValueError unless `x` is a floating (n, p) matrix."""
    if not isinstance(x, Tensor):
        raise TypeError(f"{argument}: expected a torch.Tensor, got {type(x).__name__}")
    if x.dtype not in FLOATING:
        raise TypeError(
            f"{argument}: expected float64, float32, float16 or bfloat16, got {x.dtype}"
        )
    if x.layout is not torch.strided:
        raise TypeError(f"{argument}: expected a dense tensor, as x.to_dense() is, got {x.layout}")
    if x.dim() != 2:
        got = f"{tuple(x.shape)}; {_FORMS}" if x.dim() > 2 else f"{tuple(x.shape)}"
        raise ValueError(f"{argument}: expected a matrix (n_samples, n_features), got shape {got}")


# Of maps and tokens, whose features may be several things.
_FORMS = (
    "x.flatten(1) has all numbers of a sample as features, x.flatten(2).mean(2) the mean over the "
    "positions of (n, channels, ...), x.flatten(2).mT.flatten(0, 1) each position as a sample; "
    "similarity.prepare(x, maps='flatten', 'pool' or 'positions') does it"
)


def as_tensor(x: Any) -> Any:
    """A NumPy array of numbers as a tensor, of the same memory where torch can have it; anything
    else as it is.

    Raises:
        ValueError: A masked array with masked values: those below the mask are none.
    """
    if np.ma.is_masked(x):
        count = int(np.ma.getmaskarray(x).sum())
        raise ValueError(
            f"array: expected values everywhere, got a masked array of shape {x.shape} with "
            f"{count} masked; fill them, or leave their samples out of all arrays"
        )
    if not isinstance(x, np.ndarray) or x.dtype.kind not in "biufc":
        return x
    native = x.astype(x.dtype.newbyteorder("="), copy=False)
    usable = native.flags.writeable and min(native.strides, default=0) >= 0
    return torch.from_numpy(native if usable else native.copy())


def check_finite(argument: str, x: Tensor) -> None:
    """Raises ValueError where `x` has NaN or Inf."""
    if not bool(torch.isfinite(x).all()):
        bad = (~torch.isfinite(x)).sum().item()
        raise ValueError(f"{argument}: expected finite values, got {bad} NaN or Inf")
