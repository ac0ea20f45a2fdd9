"""All cells of results as few bytes: 16 bits each, far more than a colour or a hover shows."""

from __future__ import annotations

from typing import Any

import numpy as np

from repsim_fast.comparison.grid import Array

__all__ = ["Cells"]

_UNKNOWN = 0xFFFF
_STEPS = _UNKNOWN - 1


class Cells:
    """Matrices written one after the other, as the page's script reads them."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._count = 0

    def add(
        self,
        matrix: Array,  # (L, L)
    ) -> dict[str, Any]:
        """Where and how the matrix is written: of a symmetric one the upper triangle.

        Values are ``low + step * number``, and what is not finite has the largest number.
        """
        finite = np.isfinite(matrix)
        known = matrix[finite]
        low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
        step = (high - low) / _STEPS or 1.0
        codes = np.full(matrix.shape, _UNKNOWN, dtype="<u2")
        codes[finite] = np.rint((known - low) / step).astype("<u2")
        symmetric = bool((codes == codes.T).all())
        held = codes[np.triu_indices(len(codes))] if symmetric else codes.ravel()
        place = {"offset": self._count, "low": low, "step": step, "symmetric": symmetric}
        self._parts.append(held.tobytes())
        self._count += held.size
        return place

    def content(self) -> bytes:
        """All of them."""
        return b"".join(self._parts)
