"""Samples in folds: representations of all but one fold, and of that one as seen from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.randomness import seeded
from repsim_fast.similarity.base.prepared import Prepared


@dataclass(frozen=True, eq=False)
class Split:
    """Numbers of the samples to fit (m,) and of those held out (h,)."""

    fitted: Tensor
    held_out: Tensor


def splits(n: int, folds: int, seed: int) -> Iterator[Split]:
    """The samples, in a random order, dealt to folds in turn; each fold held out once."""
    order = torch.randperm(n, generator=seeded(seed))
    for fold in range(folds):
        held_out = torch.zeros(n, dtype=torch.bool)
        held_out[order[fold::folds]] = True
        yield Split((~held_out).nonzero().flatten(), held_out.nonzero().flatten())


@dataclass(frozen=True, eq=False)
class Fold:
    """One split of a representation.

    All in float64.

    Attributes:
        samples: The split.
        basis: (m, k) orthonormal, of the samples to fit without their mean.
        coordinates: (k, p), with which the basis makes their features, or as much as it holds.
        scores: (h, k) where the samples held out lie in the same coordinates.
    """

    samples: Split
    basis: Tensor
    coordinates: Tensor
    scores: Tensor


def fold(x: Prepared, samples: Split, basis_of: Callable[[Prepared], Tensor]) -> Fold:
    """A split of a representation in float64, by a basis of the samples to fit."""
    fitted = x.take(samples.fitted)
    basis = basis_of(fitted)
    coordinates = basis.mT @ fitted.centered
    scores = torch.linalg.lstsq(coordinates.mT, centred_like(x, samples).mT).solution.mT
    return Fold(samples, basis, coordinates, scores)


def centred_like(x: Prepared, samples: Split) -> Tensor:
    """Features held out (h, p) without the mean of those to fit."""
    return x.take(samples.held_out).features - x.take(samples.fitted).features.mean(dim=0)


@dataclass(frozen=True, eq=False)
class Folds:
    """All splits of a representation.

    Attributes:
        prepared: The representation.
        folds: Each with one fold held out.
        again: Makes them for other samples.
    """

    prepared: Prepared
    folds: tuple[Any, ...]
    again: Callable[[Prepared], Folds]

    def take(self, rows: Tensor) -> Folds:
        """The view after a permutation of samples, which changes what each fold is."""
        return self.again(self.prepared.take(rows))
