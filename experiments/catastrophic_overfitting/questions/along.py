"""A training at the epochs that are kept, and where among them it collapses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from repsim_fast.analysis.estimates import Estimate

from ..overfitting_lab import OverfittingLab
from ..recipes import Recipe
from ..regimes import collapse


class Collapse(NamedTuple):
    """Last robust epoch before, and the last one of the training."""

    before: int
    after: int


def scores_along(lab: OverfittingLab, recipe: Recipe) -> dict[int, dict[str, Estimate]]:
    """Scores by the number of epochs done."""
    return {epoch: lab.scores(recipe, epoch) for epoch in lab.kept}


def where(scores: dict[int, dict[str, Estimate]], n_classes: int) -> Collapse | None:
    """Of a training that ends collapsed and was robust before; None of another."""
    at, epochs = collapse(list(scores.values()), n_classes), list(scores)
    return None if at is None else Collapse(epochs[at[0]], epochs[-1])


def of_seeds(lab: OverfittingLab) -> Sequence[tuple[int, Recipe]]:
    """Training against one step at ``focus``, of each seed."""
    return [(seed, lab.recipe(seed=seed)) for seed in lab.preset.seeds]
