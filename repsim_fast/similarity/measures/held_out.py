"""What measures of samples held out share: a random split into folds, and a basis of each fit.

What features find by chance among the samples they are fitted to is not there among others, so that
unrelated representations have values about 0 however many features they have.
"""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from repsim_fast.similarity.base.folds import Folds, fold, splits
from repsim_fast.similarity.base.measure import check_count
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.streaming.samples import SampleMeasure


@dataclass(frozen=True)
class CrossValidated(SampleMeasure[Folds]):
    """A measure of samples held out, by a random split into folds."""

    min_samples: ClassVar[int] = 6
    folds: int = dataclasses.field(default=5, kw_only=True)
    seed: int = dataclasses.field(default=0, kw_only=True)

    def __post_init__(self) -> None:
        check_count("folds", self.folds, 2, 2**31)

    def view(self, x: Prepared) -> Folds:
        """Bases of the samples of all but one fold, and where the others lie in them."""
        check_count("folds", self.folds, 2, x.n_samples // 3, f", three samples each of {x.name}")
        # Coordinates of samples held out in a basis of others take more digits than float32 has.
        wide = x.double()
        split = splits(x.n_samples, self.folds, self.seed)
        found = tuple(fold(wide, samples, self.basis) for samples in split)
        return Folds(wide, found, self.view)

    @abstractmethod
    def basis(self, fitted: Prepared) -> Tensor:
        """Orthonormal basis (m, k) of the samples to fit."""
