"""Numbers of whole grids: how alike two models are, and how that falls with distance."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from repsim_fast.analysis.estimates import jackknife_error
from repsim_fast.comparison.grid import Array, Grid, is_distance, measure_title

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from repsim_fast.comparison.result import SimilarityResult

__all__ = [
    "MODELS_OF_A_SHEET",
    "along_depth",
    "by_distance",
    "means_along_depth",
    "overview_in_words",
    "plot_overview",
]

# More have more pairs than one can look at in a picture.
MODELS_OF_A_SHEET = 3


def _depth_path(rows: int, columns: int) -> tuple[Array, Array]:
    """Pairs of layers at the same relative depth: numbers of rows and of columns.

    Of models with as many layers these are the layers at the same position; of others each layer
    of the deeper one, with the layer of the other one that is as far from the input.
    """
    steps = np.arange(max(rows, columns))

    def positions(count: int) -> Array:
        found: Array = np.rint(steps * (count - 1) / max(len(steps) - 1, 1)).astype(np.int64)
        return found

    return positions(rows), positions(columns)


def along_depth(grid: Grid) -> tuple[float, float]:
    """Mean over pairs of layers at the same relative depth, NaN left out, with its error.

    NaN where nothing is known.
    """
    rows, columns = _depth_path(*grid.value.shape)
    value, error = _with_error(grid, lambda cells: _mean(cells[..., rows, columns]))
    return float(value), float(error)


def by_distance(grid: Grid) -> tuple[Array, Array]:
    """Mean over pairs of layers that are k positions apart, with its error, each (layers,).

    Raises:
        ValueError: The grid is not square.
    """
    if not grid.is_square:
        raise ValueError(f"grid must have as many rows as columns, got {grid.value.shape}")
    size = len(grid.rows)
    apart = np.abs(np.subtract.outer(np.arange(size), np.arange(size))).ravel()
    order = np.argsort(apart, kind="stable")
    first = np.searchsorted(apart[order], np.arange(size))  # pair of each distance

    def mean(cells: Array) -> Array:
        pairs = cells.reshape(*cells.shape[:-2], size * size)[..., order]
        known = np.isfinite(pairs)
        total, count = (
            np.add.reduceat(some, first, axis=-1)
            for some in (np.where(known, pairs, 0), known.astype(np.float64))
        )
        with np.errstate(invalid="ignore"):
            found: Array = total / count
        return found

    return _with_error(grid, mean)


def means_along_depth(result: SimilarityResult) -> Array:
    """(models, models): means over layers at the same relative depth; NaN where not known."""
    size = len(result.models)
    found = np.full((size, size), np.nan)
    for i in range(size):
        for j in range(i, size):
            rows, columns = _depth_path(len(result.layers[i]), len(result.layers[j]))
            start = [sum(map(len, result.layers[:k])) for k in (i, j)]
            found[i, j] = found[j, i] = _mean(result.value[start[0] + rows, start[1] + columns])
    return found


def overview_in_words(result: SimilarityResult) -> list[str]:
    """A line for each grid; of more models than fit on a sheet one, with the pairs at both ends."""
    if len(result.models) <= MODELS_OF_A_SHEET:
        return [f"{grid.title}: {grid.in_words()}" for grid in result.grids()]
    means = means_along_depth(result)
    levels = np.full_like(means, np.nan)
    if result.chance is not None:
        levels = means_along_depth(replace(result, value=result.chance))
    pairs = [(i, j) for j in range(len(means)) for i in range(j)]
    known = sorted((pair for pair in pairs if np.isfinite(means[pair])), key=lambda p: means[p])

    def in_words(i: int, j: int) -> str:
        chance = f", by chance {levels[i, j]:.3f}" if abs(levels[i, j]) >= 0.0005 else ""
        return f"{means[i, j]:.3f} ({result.models[i]} / {result.models[j]}{chance})"

    ends = " to ".join(in_words(*pair) for pair in known[:1] + known[-1:])
    what = f"{len(pairs)} pairs of models, mean over layers at the same relative depth"
    return [f"{what}: {ends or 'no values'}"]


def plot_overview(
    result: SimilarityResult, *, path: str | os.PathLike[str] | None = None, **options: Any
) -> Figure:
    """One heat map of all models against each other: means over layers at the same relative depth.

    Args:
        result: The comparison.
        path: Also write the figure to this file.
        **options: Of :func:`repsim_fast.plotting.plot_heat_maps`.

    Raises:
        ValueError: An option out of range.
        OSError: The place cannot be written to.
    """
    from repsim_fast.plotting import HeatMap, plot_heat_maps

    value = means_along_depth(result)
    top = float(np.nanmax(value, initial=0.0)) or 1.0 if is_distance(result.measure) else 1.0
    one = HeatMap(
        value, result.models, result.models, note="mean over layers at the same relative depth"
    )
    label = f"mean {measure_title([result.between(0, 0)])}"
    return plot_heat_maps([one], label=label, limits=(0.0, top), path=path, **options)


def _with_error(grid: Grid, function: Callable[[Array], Array]) -> tuple[Array, Array]:
    """A function of (..., rows, columns) at the values, and its jackknife error."""
    value = function(grid.value)
    if grid.replicates is None:
        return value, np.full_like(value, np.nan)
    return value, np.asarray(jackknife_error(function(grid.replicates)))


def _mean(cells: Array) -> Array:
    """Over the last axis; NaN where nothing is known."""
    known = np.isfinite(cells)
    with np.errstate(invalid="ignore"):
        mean: Array = np.where(known, cells, 0).sum(-1) / known.sum(-1)
    return mean
