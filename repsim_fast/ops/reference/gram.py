"""Centred Gram matrices by their definitions, written out: the tests' oracle in float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repsim_fast._core.precision import full_precision


def center_gram(
    gram: Tensor,  # (n, n)
    centering: str,
) -> Tensor:
    """K without the means of its rows and columns: H K H for "double", H = I - 11ᵀ/n.

    "unbiased" is U-centring (Székely and Rizzo, 2014, definition 2), which counts i ≠ j only. With
    "none" and "features" K stays as it is.
    """
    if centering not in ("double", "unbiased"):
        return gram
    n = gram.shape[0]
    ones = torch.ones_like(gram)
    counted, each, all_of = ones, n, n * n
    if centering == "unbiased":
        counted = ones - torch.eye(n, dtype=gram.dtype, device=gram.device)
        each, all_of = n - 2, (n - 1) * (n - 2)
    k = gram * counted
    return counted * (k - k @ ones / each - ones @ k / each + ones @ k @ ones / all_of)


def pack_gram(
    gram: Tensor,  # (n, n)
    centering: str,
) -> Tensor:
    """Lower triangle row by row, off-diagonal entries times √2; no diagonal for "unbiased"."""
    parts = []
    for i, row in enumerate(gram):
        parts.append(math.sqrt(2.0) * row[:i])
        if centering != "unbiased":
            parts.append(row[i : i + 1])
    return torch.cat(parts)


@full_precision()
def centered_gram(
    x: Tensor,  # (n, p)
    *,
    centering: str = "unbiased",
    packed: bool = False,
    precision: str | None = None,
) -> Tensor:
    """Twin of `ops.centered_gram`; see there."""
    wide = x if x.dtype == torch.float64 else x.float()
    if centering != "none":
        wide = wide - wide.mean(dim=0)
    if precision == "bfloat16":
        wide = wide.bfloat16().float()
    gram = center_gram(wide @ wide.T, centering)
    return pack_gram(gram, centering) if packed else gram
