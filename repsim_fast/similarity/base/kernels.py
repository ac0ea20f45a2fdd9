"""Kernels of pairs of samples, centred, as unit vectors."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from repsim_fast.ops.centering import center_gram, pack_gram
from repsim_fast.similarity.base.prepared import Prepared, UndefinedError
from repsim_fast.similarity.base.views import Triangle

# A kernel of which centring leaves less than this, in units of rounding of the whole, is constant.
EQUAL_ULPS = 8


# Share of a kernel's norm that centring must leave for float32 to hold it, and else float64 does.
VARIED = 1e-2


def unit_triangle(x: Prepared, kernel: Callable[[Prepared], Tensor], centering: str) -> Triangle:
    """A kernel matrix, centred, packed and scaled to norm 1, in the dtype of the features."""
    packed, left = _centred(kernel(x), centering)
    if x.features.dtype == torch.float32 and left < VARIED:
        packed, left = _centred(kernel(x.double()), centering)
    if not EQUAL_ULPS * torch.finfo(x.dtype).eps < left < math.inf:  # also for NaN
        raise UndefinedError(f"{x.name}: expected a kernel that varies, got a constant one")
    norm = torch.linalg.vector_norm(packed, dtype=torch.float64)
    return Triangle((packed / norm.to(packed.dtype)).to(x.features.dtype), x.n_samples)


def _centred(gram: Tensor, centering: str) -> tuple[Tensor, float]:
    """A symmetric matrix, centred and packed, and its norm as a share of that before."""
    packed = pack_gram(center_gram(gram, centering), centering)
    whole = torch.linalg.vector_norm(pack_gram(gram.detach(), centering), dtype=torch.float64)
    left = torch.linalg.vector_norm(packed.detach(), dtype=torch.float64)
    return packed, float(left / whole)
