"""What a caller of `load` wants of a source, and how rows are drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from repsim_fast._core.randomness import seeded

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Request:
    """One checked call of `load`, without the source.

    Args:
        split: "train" or "test".
        size: side of the square images wanted, None for the images as they are.
        limit: at most this many images, None for all.
        seed: which images a `limit` keeps.
        progress: show a progress bar while images are decoded.
    """

    split: str
    size: int | None = None
    limit: int | None = None
    seed: int = 0
    progress: bool = False

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {self.split!r}")
        for name in ("size", "limit"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1 or None, got {value}")

    def rows(self, total: int) -> npt.NDArray[np.int64]:
        """Return the rows to read out of `total`, ascending."""
        return sample_rows(total, self.limit, self.seed)


def sample_rows(total: int, limit: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Draw `limit` of `total` rows without replacement and return them ascending."""
    if limit is None or limit >= total:
        return np.arange(total)
    generator = seeded(seed)
    rows: npt.NDArray[np.int64] = torch.randperm(total, generator=generator)[:limit].numpy()
    return np.sort(rows)
