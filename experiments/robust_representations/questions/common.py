"""What several questions say about a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from experiments.lab.comparisons import Comparison
from experiments.lab.lab import View
from repsim_fast.analysis.estimates import Estimate
from repsim_fast.analysis.grids import (
    Array,
    block_index,
    long_range,
    mean_off_diagonal,
    stage_block,
    stage_contrast,
    stage_mean,
)

from ..recipes import Recipe
from ..robust_lab import RobustLab

STAGES = ("stage1", "stage2", "stage3")


def structure(found: Comparison, view: str) -> dict[str, Any]:
    """All indices of the grid of a network with itself."""
    stages, own = found.stages(view), (view, view)
    row: dict[str, Any] = {
        "mean off-diagonal": found.estimate(mean_off_diagonal, own),
        "block index": found.estimate(lambda g: block_index(g, stages), own),
        "stage contrast": found.estimate(lambda g: stage_contrast(g, stages), own),
        "long range": found.estimate(long_range, own),
    }
    for i, a in enumerate(STAGES):
        for b in STAGES[i:]:
            row[f"{a}-{b}"] = found.estimate(lambda g, a=a, b=b: stage_block(g, stages, a, b), own)
    return row


def accuracies(lab: RobustLab, view: View[Recipe]) -> dict[str, Any]:
    """Clean and robust accuracy of a view's trained network."""
    found = lab.accuracy(view.recipe)
    return {"clean accuracy": found["clean"], "robust accuracy": found["robust"]}


def stage_mean_of(stages: Sequence[str], stage: str) -> Callable[[Array], float]:
    """Mean similarity of the same layers, over those of a stage, as a function of a grid."""
    return lambda grid: stage_mean(grid.diagonal(), stages, stage)


def stage_means(found: Comparison, a: str, b: str, *, change: bool = False) -> dict[str, Estimate]:
    """Mean similarity of the same layers of two views by stage; with ``change``, 1 minus it."""
    means = {s: stage_mean_of(found.stages(a), s) for s in STAGES}
    return {
        s: found.estimate(lambda g, mean=mean: 1 - mean(g) if change else mean(g), (a, b))
        for s, mean in means.items()
    }


def depth_gap(found: Comparison, a: str, b: str) -> Estimate:
    """How much more alike the first stages of two views are than their last."""
    first, last = (stage_mean_of(found.stages(a), s) for s in (STAGES[0], STAGES[-1]))
    return found.estimate(lambda g: first(g) - last(g), (a, b))


def borders(stages: tuple[str, ...]) -> list[tuple[float, str]]:
    """Where stages begin, for pictures."""
    names = np.asarray(stages)
    starts = [0, *(np.flatnonzero(names[1:] != names[:-1]) + 1)]
    return [(float(s) - 0.5, str(names[s])) for s in starts if names[s] != "stem"]


def diagonal(grid: Array) -> Array:
    """Similarity of each layer of a view with the same layer of another."""
    return grid.diagonal()
