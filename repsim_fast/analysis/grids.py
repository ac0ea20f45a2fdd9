"""Numbers that describe a grid of similarities: means over its cells, and block structure.

A grid is a matrix (rows, columns) of similarities, layers in order of execution, an array or what
becomes one, such as a tensor of ``similarity.grid``. Cells that are
NaN, those of layers that do not vary, are left out everywhere. Block structure is about *stages*:
a label for each layer, of which those in ``OUTSIDE`` belong to no stage.

Each function takes one grid, so that its jackknife error follows from the grids without each group
of samples; see ``repsim_fast.analysis.estimates.jackknife``.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

__all__ = [
    "HEAD",
    "OUTSIDE",
    "STEM",
    "Array",
    "block_index",
    "long_range",
    "mean_by_distance",
    "mean_off_diagonal",
    "mean_same_layer",
    "rank_correlation",
    "stage_block",
    "stage_contrast",
    "stage_mean",
    "stages_by_name",
]

Array = npt.NDArray[np.float64]
_Mask = npt.NDArray[np.bool_]

STEM, HEAD = "stem", "head"
OUTSIDE = (STEM, HEAD)
"""Labels of layers before the first stage and after the last, which are part of no block."""


def stages_by_name(layers: Sequence[str], prefix: str = "stage") -> tuple[str, ...]:
    """Stage of each layer from the names of the modules: "stem", "stage1", ..., "head".

    A stage is the first part of a name where that begins with ``prefix``. Layers before the first
    of them are the stem, others the head. The stage is that which the *module* belongs to: the
    first norm of a stage reads what the stage before made.

    Args:
        layers: Names of the layers, in order of execution, such as "stage1.0.conv1".
        prefix: What names of stages begin with.

    Example:
        >>> stages_by_name(["conv1", "stage1.0.bn1", "stage2.0.bn1", "fc"])
        ('stem', 'stage1', 'stage2', 'head')
    """
    stages, outside = [], STEM
    for layer in layers:
        part = layer.partition(".")[0]
        if part.startswith(prefix):
            outside = HEAD
        else:
            part = outside
        stages.append(part)
    return tuple(stages)


def mean_off_diagonal(grid: Array) -> float:
    """Mean over pairs of layers at different positions.

    Args:
        grid: (layers, layers).

    Returns:
        NaN where no cell is known.

    Raises:
        ValueError: The grid is not square.
    """
    grid = as_array(grid)
    return _mean(grid[_apart(grid) > 0])


def mean_same_layer(grid: Array) -> float:
    """Mean over pairs of layers at the same position of two networks; 1 within a network.

    Args:
        grid: (layers, layers).

    Raises:
        ValueError: The grid is not square.
    """
    grid = as_array(grid)
    return _mean(grid[_apart(grid) == 0])


def mean_by_distance(grid: Array) -> Array:
    """Mean over pairs of layers that are k positions apart.

    Args:
        grid: (layers, layers).

    Returns:
        (layers,) for k = 0 ... layers - 1.

    Raises:
        ValueError: The grid is not square.
    """
    grid = as_array(grid)
    apart = _apart(grid)
    return np.array([_mean(grid[apart == k]) for k in range(len(grid))])


def long_range(grid: Array) -> float:
    """Mean over pairs of layers that are at least half the network apart.

    Args:
        grid: (layers, layers).

    Raises:
        ValueError: The grid is not square.
    """
    grid = as_array(grid)
    return _mean(grid[_apart(grid) >= len(grid) / 2])


def stage_block(grid: Array, stages: Sequence[str], row: str, column: str) -> float:
    """Mean over layers of one stage (rows) and another (columns), without the diagonal.

    Args:
        grid: (layers, layers).
        stages: (layers,) labels.
        row, column: Two of the labels, which may be the same.

    Raises:
        ValueError: The grid is not square, or stages are not one for each layer.
    """
    grid = as_array(grid)
    names = _labels(grid, stages)
    return _mean(grid[np.outer(names == row, names == column) & (_apart(grid) > 0)])


def stage_mean(values: Array, stages: Sequence[str], stage: str) -> float:
    """Mean of one number a layer over the layers of a stage.

    Args:
        values: (layers,).
        stages: (layers,) labels.
        stage: One of them.

    Raises:
        ValueError: Stages are not one for each layer.
    """
    values = as_array(values)
    return _mean(values[_labels(values, stages) == stage])


def stage_contrast(grid: Array, stages: Sequence[str]) -> float:
    """1 - mean between stages / mean within stages; 0 without stages, 1 for isolated ones.

    It rises with any loss of similarity over distance, stages or not: see :func:`block_index`.

    Args:
        grid: (layers, layers).
        stages: (layers,) labels; layers in ``OUTSIDE`` are left out.

    Raises:
        ValueError: The grid is not square, or stages are not one for each layer.
    """
    grid = as_array(grid)
    inside, across = _pairs(grid, stages)
    off = _apart(grid) > 0
    return 1 - _mean(grid[across & off]) / _mean(grid[inside & off])


def block_index(grid: Array, stages: Sequence[str]) -> float:
    """How much more alike layers of one stage are than of two stages, at equal distance.

    At each distance d at which both kinds of pairs exist, the difference of their means, averaged
    over d with the number of the rarer kind as weight:

        Σ_d w_d (mean within - mean across) / Σ_d w_d,  w_d = min(pairs within, pairs across)

    A similarity that depends on distance alone has 0, blocks of ones on a ground of zeros have 1.
    What it finds hangs on the stages: of a network whose stages end between two modules, the first
    layers of a stage may still show the tensor of the one before. Labels of
    ``analysis.stages.making_stages`` are those of the stage that made it; with them the index finds
    the blocks of a published map that it is blind to by the modules' names.

    Args:
        grid: (layers, layers).
        stages: (layers,) labels; layers in ``OUTSIDE`` are left out.

    Returns:
        In [-1, 1] for similarities in [0, 1]; NaN where no distance has both kinds of pairs.

    Raises:
        ValueError: The grid is not square, or stages are not one for each layer.

    Example:
        >>> stages = ["stage1"] * 3 + ["stage2"] * 3
        >>> blocks = np.equal.outer(stages, stages).astype(float)
        >>> block_index(blocks, stages)
        1.0
    """
    grid = as_array(grid)
    inside, across = _pairs(grid, stages)
    apart = _apart(grid)
    known = ~np.isnan(grid)
    total = weight = 0.0
    for d in range(1, len(grid)):
        within = grid[inside & known & (apart == d)]
        between = grid[across & known & (apart == d)]
        count = min(within.size, between.size)
        if count:
            total += count * float(within.mean() - between.mean())
            weight += count
    return total / weight if weight else float("nan")


def rank_correlation(a: Array, b: Array) -> float:
    """Spearman's rank correlation of two arrays over cells known in both.

    Args:
        a, b: Of one shape, such as grids of two measures.

    Returns:
        In [-1, 1]; equal values share their mean rank. NaN where one array does not vary, or no
        cell is known in both.

    Raises:
        ValueError: Arrays of different shapes.

    Example:
        >>> rank_correlation(np.array([1.0, 2.0, 4.0]), np.array([0.1, 0.5, 0.6]))
        1.0

    References:
        Spearman, "The proof and measurement of association between two things", 1904.
    """
    a, b = as_array(a), as_array(b)
    if a.shape != b.shape:
        raise ValueError(f"b: expected the shape of a, {a.shape}, got {b.shape}")
    known = ~(np.isnan(a) | np.isnan(b))
    x, y = (_ranks(values[known]) for values in (a, b))
    if not (x.size and np.ptp(x) and np.ptp(y)):
        return float("nan")
    return float(np.corrcoef(x, y)[0, 1])


def as_array(values: npt.ArrayLike) -> Array:
    """Of float64, in which masks of unknown cells are NumPy's: those of a tensor mean others."""
    found: Array = np.asarray(values, dtype=np.float64)
    return found


def _ranks(values: Array) -> Array:
    """Ranks (n,) from 1; equal values have the mean of theirs."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[place]


def _apart(grid: Array) -> npt.NDArray[np.int64]:
    """How many positions the layers of each cell are apart."""
    if grid.ndim != 2 or grid.shape[0] != grid.shape[1]:
        raise ValueError(f"grid: expected as many rows as columns, got shape {grid.shape}")
    rows, columns = np.indices(grid.shape)
    apart: npt.NDArray[np.int64] = np.abs(rows - columns)
    return apart


def _labels(values: Array, stages: Sequence[str]) -> npt.NDArray[np.str_]:
    if len(stages) != len(values):
        raise ValueError(
            f"stages: expected a label for each of {len(values)} layers, got {len(stages)}"
        )
    return np.asarray(stages, dtype=np.str_)


def _pairs(grid: Array, stages: Sequence[str]) -> tuple[_Mask, _Mask]:
    """Pairs of layers of one stage, and pairs of layers of two; none with a layer outside."""
    names = _labels(grid, stages)
    inside = ~np.isin(names, OUTSIDE)
    same = names[:, None] == names[None, :]
    staged = inside[:, None] & inside[None, :]
    return staged & same, staged & ~same


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
