"""Loaders whose worker processes begin each pass anew."""

from __future__ import annotations

import copy
from typing import Any

from torch.utils.data import DataLoader


def afresh(source: Any) -> Any:
    """``source``, for one pass; of a loader with ``persistent_workers`` a copy with workers of its
    own.

    Workers that stay go on in their random numbers, which were seeded when they began: what they
    draw then depends on every pass before, and on no seed of this one.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader(torch.arange(3), num_workers=1, persistent_workers=True)
        >>> afresh(loader) is loader, afresh([1, 2])
        (False, [1, 2])
    """
    if not (isinstance(source, DataLoader) and source.persistent_workers):
        return source
    # A copy, as a new one of the same arguments would lack what a subclass adds. The attribute is
    # where a loader keeps its workers; the caller's stay with the caller's loader.
    fresh = copy.copy(source)
    fresh._iterator = None
    return fresh
