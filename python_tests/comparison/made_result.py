"""A result without a comparison."""

from __future__ import annotations

import numpy as np

from repsim_fast._core.versions import versions
from repsim_fast.comparison.result import SimilarityResult


def make(layers: tuple[int, ...] = (3, 2, 3)) -> SimilarityResult:
    """A result with recognisable numbers: symmetric, 1 on the diagonal."""
    size = sum(layers)
    rng = np.random.default_rng(0)
    value = rng.random((size, size))
    value = (value + value.T) / 2
    np.fill_diagonal(value, 1.0)
    return SimilarityResult(
        models=tuple("abcdefgh"[: len(layers)]),
        layers=tuple(tuple(f"layer{i}" for i in range(n)) for n in layers),
        value=value,
        standard_error=np.full((size, size), 0.01),
        measure="cka",
        estimator="unbiased",
        n_samples=100,
        n_batches=4,
        settings={"passes": 1, "data": "tensor", "precision": None, "models": {"a": "Tiny é"}},
        versions=versions(),
        seconds={"total": 0.5},
    )
