"""Numbers that describe a grid of similarities, and how far to trust them.

A grid is (rows, columns), layers in order of execution; ``stages`` names the stage of each layer.
NaN cells, of layers that do not vary, are left out everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from math import erfc, sqrt

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Estimate:
    """A number with its standard error (NaN: unknown)."""

    value: float
    se: float

    def __str__(self) -> str:
        return f"{self.value:.3f} ± {self.se:.3f}"


def jackknife(value: float, replicates: Sequence[float]) -> Estimate:
    """Standard error √((g-1)/g Σ(vᵢ - v̄)²) from the values without group i of g.

    References:
        Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 11.
    """
    left_out = np.asarray(replicates, dtype=np.float64)
    g = len(left_out)
    if g < 2:
        return Estimate(float(value), float("nan"))
    spread = np.square(left_out - left_out.mean()).sum() * (g - 1) / g
    return Estimate(float(value), float(np.sqrt(spread)))


def jackknife_errors(replicates: Matrix) -> Matrix:
    """The same standard error for each cell of (groups, ...) values."""
    g = len(replicates)
    if g < 2:
        return np.full(replicates.shape[1:], np.nan)
    spread = np.square(replicates - replicates.mean(0)).sum(0) * (g - 1) / g
    errors: Matrix = np.sqrt(spread)
    return errors


def share(right: float, n: int) -> Estimate:
    """A share of n images, such as an accuracy, with its binomial standard error.

    The error is that of Laplace's estimate: none of n images is not known without error.
    """
    likely = (right * n + 1) / (n + 2)
    return Estimate(right, sqrt(likely * (1 - likely) / n))


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean over networks trained with different seeds, and the mean's standard error."""
    known = np.asarray(values, dtype=np.float64)
    se = known.std(ddof=1) / sqrt(len(known)) if len(known) > 1 else float("nan")
    return Estimate(float(known.mean()), float(se))


def mean_over_seeds(networks: Sequence[Estimate]) -> Estimate:
    """The same of numbers with errors of their own, which count where there is one network."""
    return networks[0] if len(networks) == 1 else over_seeds([e.value for e in networks])


def spread_over_seeds(values: Sequence[float]) -> Estimate:
    """Standard deviation over networks of different seeds, its error that of normal values."""
    known = np.asarray(values, dtype=np.float64)
    if len(known) < 2:
        return Estimate(float("nan"), float("nan"))
    deviation = float(known.std(ddof=1))
    return Estimate(deviation, deviation / sqrt(2 * (len(known) - 1)))


def difference(a: Estimate, b: Estimate) -> Estimate:
    """a - b of independent numbers."""
    return Estimate(a.value - b.value, sqrt(a.se**2 + b.se**2))


def ratio(a: Estimate, b: Estimate) -> Estimate:
    """a / b of independent positive numbers, to first order; b not positive gives infinity."""
    if not b.value > 0:
        return Estimate(float("inf"), float("nan"))
    value = a.value / b.value
    return Estimate(value, value * sqrt((a.se / a.value) ** 2 + (b.se / b.value) ** 2))


def stages_of(layers: Sequence[str]) -> tuple[str, ...]:
    """Stage of each layer: "stem" before the first stage, "stage1", ..., "head" after the last."""
    found, seen = [], False
    for layer in layers:
        part = layer.partition(".")[0]
        staged = part.startswith("stage")
        seen = seen or staged
        found.append(part if staged else "head" if seen else "stem")
    return tuple(found)


def mean_off_diagonal(grid: Matrix) -> float:
    """Mean over pairs of layers at different positions."""
    return _mean(grid[~np.eye(len(grid), dtype=bool)])


def mean_same_layer(grid: Matrix) -> float:
    """Mean over pairs of layers at the same position."""
    return _mean(grid.diagonal())


def by_distance(grid: Matrix) -> Matrix:
    """Mean over pairs that are k layers apart, k = 0 ... layers - 1."""
    apart = _apart(len(grid))
    return np.array([_mean(grid[apart == k]) for k in range(len(grid))])


def long_range(grid: Matrix) -> float:
    """Mean over pairs at least half the network apart."""
    return _mean(grid[_apart(len(grid)) >= len(grid) / 2])


def stage_block(grid: Matrix, stages: Sequence[str], row: str, column: str) -> float:
    """Mean over layers of one stage (rows) and another (columns), without the diagonal."""
    names = np.asarray(stages)
    cells = np.outer(names == row, names == column) & (_apart(len(grid)) > 0)
    return _mean(grid[cells])


def stage_mean(values: Matrix, stages: Sequence[str], stage: str) -> float:
    """Mean of a number a layer over the layers of a stage."""
    return _mean(values[np.asarray(stages) == stage])


def stage_contrast(grid: Matrix, stages: Sequence[str]) -> float:
    """1 - mean between stages / mean within stages; 0 without stages, 1 for isolated ones.

    Falls with any loss of similarity over distance, stages or not: see ``block_index``.
    """
    same, staged = _same_stage(stages)
    off = _apart(len(grid)) > 0
    return 1 - _mean(grid[staged & ~same & off]) / _mean(grid[staged & same & off])


def block_index(grid: Matrix, stages: Sequence[str]) -> float:
    """Block structure: how much more alike layers of one stage are than of two, at equal distance.

    At each distance d at which both kinds of pairs exist, the difference of their means; averaged
    over d with the weight of the rarer kind. A similarity that depends on distance alone has 0,
    blocks of ones on a ground of zeros have 1.
    """
    same, staged = _same_stage(stages)
    apart = _apart(len(grid))
    known = ~np.isnan(grid)
    total = weight = 0.0
    for d in range(1, len(grid)):
        inside = grid[staged & same & known & (apart == d)]
        across = grid[staged & ~same & known & (apart == d)]
        count = min(inside.size, across.size)
        if count:
            total += count * (inside.mean() - across.mean())
            weight += count
    return total / weight if weight else float("nan")


def permutation_test(low: Sequence[float], high: Sequence[float]) -> float:
    """Exact one-sided p value of mean(high) > mean(low) under exchange of the two kinds.

    With three and three networks it is a multiple of 1/20.
    """
    values = np.asarray([*low, *high], dtype=np.float64)
    observed = np.mean(high) - np.mean(low)
    count = least = 0
    for chosen in combinations(range(len(values)), len(high)):
        mask = np.isin(np.arange(len(values)), chosen)
        count += 1
        # Rounding must not make the observed arrangement miss itself.
        least += values[mask].mean() - values[~mask].mean() >= observed - 1e-12
    return least / count


def one_sided_p(difference: Estimate) -> float:
    """P value of a difference above 0 for a normal error; NaN where the error is unknown."""
    if not difference.se > 0:
        return float("nan")
    return 0.5 * erfc(difference.value / difference.se / sqrt(2))


def spearman(a: Matrix, b: Matrix) -> float:
    """Rank correlation over cells known in both."""
    from scipy.stats import spearmanr

    known = ~(np.isnan(a) | np.isnan(b))
    return float(spearmanr(a[known], b[known]).statistic)


def _apart(size: int) -> npt.NDArray[np.int64]:
    position = np.arange(size)
    return np.abs(position[:, None] - position[None, :])


def _same_stage(stages: Sequence[str]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """Pairs of one stage, and pairs of which both belong to numbered stages."""
    names = np.asarray(stages)
    numbered = np.char.startswith(names, "stage")
    return names[:, None] == names[None, :], numbered[:, None] & numbered[None, :]


def _mean(values: Matrix) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
