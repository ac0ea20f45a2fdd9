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


# The block index by the stage that made what a layer shows: of all layers, and of the residual
# stream alone, on which it is known to tell the published networks apart.
MADE, STREAM = "block index, making stage", "block index, residual stream"


def stream(layers: Sequence[str]) -> list[int]:
    """Positions of the residual stream: what each block reads, and the last block's output."""
    return [i for i, name in enumerate(layers) if name.endswith("relu1") or name == "relu"]


def made_index(found: Comparison, view: str, *, of_stream: bool) -> Callable[[Array], float]:
    """The block index by making stage, as a function of a view's grid with itself."""
    layers, made = found.layers[found.views.index(view)], found.made_by(view)
    at = stream(layers) if of_stream else list(range(len(layers)))
    labels = [made[i] for i in at]
    return lambda grid: block_index(grid[np.ix_(at, at)], labels)


def structure(found: Comparison, view: str) -> dict[str, Any]:
    """All indices of the grid of a network with itself."""
    stages, own = found.stages(view), (view, view)
    row: dict[str, Any] = {
        "mean off-diagonal": found.estimate(mean_off_diagonal, own),
        "block index": found.estimate(lambda g: block_index(g, stages), own),
        MADE: found.estimate(made_index(found, view, of_stream=False), own),
        STREAM: found.estimate(made_index(found, view, of_stream=True), own),
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
