"""Model by model: one number for each pair of networks, from the grid of their layers."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from repsim_fast._core.checks import check_choice
from repsim_fast.comparison.grid import Array, Matrix, error_of, is_distance

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["SUMMARIES", "ModelsMatrix"]

Summary = Literal["same_layer", "best_match", "mean", "network"]
SUMMARIES: tuple[Summary, ...] = ("same_layer", "best_match", "mean", "network")
_LABELS = {
    "same_layer": "mean of same layers",
    "best_match": "mean of best matches",
    "mean": "mean of all layers",
    "network": "angle between networks",
}
# Measures whose values are cosines between Grams of one layer each.
_COSINES = ("cka", "cka_rbf", "rv_coefficient")


@dataclass(frozen=True, eq=False, repr=False)
class ModelsMatrix:
    """One number for each pair of models.

    Attributes:
        models: Names of the models.
        value: (M, M) float64, symmetric; NaN where no pair of layers has a value.
        standard_error: (M, M) float64, jackknife; NaN where there are no replicates.
        summary: What the numbers are.
        measure: Of layers, that they are made of.
        distance: Whether larger means less alike.
    """

    models: tuple[str, ...]
    value: Matrix
    standard_error: Matrix
    summary: Summary
    measure: str
    distance: bool

    def __repr__(self) -> str:
        width = max(map(len, self.models))
        rows = (
            f"  {name:{width}}  " + " ".join(f"{value:7.4f}" for value in row)
            for name, row in zip(self.models, self.value, strict=True)
        )
        return "\n".join([f"ModelsMatrix: {self.label}", *rows])

    def _repr_html_(self) -> str | None:
        """For notebooks: text and picture; None, for the text alone, where nothing can be drawn."""
        from repsim_fast.plotting.style import to_html

        if len(self.models) < 2 or np.isnan(self.value).any():
            return None
        return to_html(repr(self), self.plot())

    @property
    def label(self) -> str:
        """What the numbers are, spelt out."""
        return f"{self.measure}, {_LABELS[self.summary]}"

    def distances(self) -> Matrix:
        """Distances (M, M), 0 on the diagonal: the numbers themselves where they are distances, of
        similarities √(s_ii + s_jj - 2 s_ij), what inner products are to Euclidean distances.

        Raises:
            ValueError: A pair of models has no number.
        """
        if np.isnan(self.value).any():
            i, j = np.argwhere(np.isnan(self.value))[0]
            raise ValueError(
                f"models: expected a number for every pair, got NaN for {self.models[i]!r} and "
                f"{self.models[j]!r}"
            )
        if self.distance:
            found = self.value.copy()
        else:
            own = self.value.diagonal()
            # Estimates scatter: two that are equal may be a little more alike than themselves.
            found = np.sqrt(np.maximum(own[:, None] + own[None, :] - 2 * self.value, 0.0))
        np.fill_diagonal(found, 0.0)
        return found

    def linkage(self, method: str = "average") -> Array:
        """Hierarchical clustering (M - 1, 4), as ``scipy.cluster.hierarchy.linkage`` gives it.

        Args:
            method: How far clusters are from one another: "average", "single", "complete" ...

        Raises:
            ValueError: One model alone, a pair without a number, or no such method.
        """
        from scipy.cluster.hierarchy import linkage  # takes a while
        from scipy.spatial.distance import squareform

        if len(self.models) < 2:
            raise ValueError("models: expected at least two to cluster, got one")
        links: Array = linkage(squareform(self.distances(), checks=False), method)
        return links

    def clusters(self, count: int, method: str = "average") -> list[tuple[str, ...]]:
        """So many groups of models, each in the order of the models.

        Raises:
            ValueError: ``count`` is no number from 1 to that of the models; as ``linkage``.
        """
        from scipy.cluster.hierarchy import fcluster

        if not isinstance(count, int) or not 1 <= count <= len(self.models):
            raise ValueError(f"count: expected 1 to {len(self.models)} clusters, got {count!r}")
        labels = fcluster(self.linkage(method), count, criterion="maxclust")
        groups: dict[int, list[str]] = {}
        for name, number in zip(self.models, labels.tolist(), strict=True):
            groups.setdefault(number, []).append(name)
        return [tuple(group) for group in groups.values()]

    def plane(self) -> tuple[Array, float]:
        """Classical multidimensional scaling: places (M, 2) whose distances are like those of the
        models, and the share of squared distances that they show, in [0, 1].

        Raises:
            ValueError: A pair of models has no number.

        References:
            Torgerson, "Multidimensional scaling: I. Theory and method", 1952.
        """
        squares = self.distances() ** 2
        centred = squares - squares.mean(0) - squares.mean(1)[:, None] + squares.mean()
        sizes, axes = np.linalg.eigh(-centred / 2)
        sizes, axes = np.maximum(sizes[::-1], 0.0), axes[:, ::-1]
        points = np.zeros((len(self.models), 2))
        kept = min(2, len(sizes))
        points[:, :kept] = axes[:, :kept] * np.sqrt(sizes[:kept])
        total = sizes.sum()
        return points, float(sizes[:2].sum() / total) if total > 0 else 1.0

    def plot(
        self,
        *,
        method: str = "average",
        path: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Figure:
        """Matrix in the order of its dendrogram, and the plane of :meth:`plane`.

        Args:
            method: Of the clustering, as for :meth:`linkage`.
            path: Also write the figure to this file.
            **options: ``theme`` and ``colormap``.

        Raises:
            ValueError: As :meth:`linkage`.
        """
        from scipy.cluster.hierarchy import dendrogram

        from repsim_fast.plotting.model_maps import Tree, plot_models

        drawn = dendrogram(self.linkage(method), no_plot=True)
        points, shown = self.plane()
        return plot_models(
            self.value,
            self.models,
            Tree(drawn["icoord"], drawn["dcoord"], drawn["leaves"]),
            points,
            label=self.label,
            distance="distance",
            shown=shown,
            path=path,
            **options,
        )

    def to_dataframe(self) -> pd.DataFrame:
        """The numbers as a table with names along both sides.

        Raises:
            ImportError: pandas is missing.
        """
        from repsim_fast._core.extras import extra

        pandas = extra("pandas", of="tables", purpose="to_dataframe()")
        table: pd.DataFrame = pandas.DataFrame(
            self.value, index=list(self.models), columns=list(self.models)
        )
        return table


def models_matrix(
    models: Sequence[str],
    layers: Sequence[Sequence[str]],
    value: Matrix,  # (L, L)
    replicates: Array | None,  # (G, L, L)
    *,
    summary: Summary,
    measure: str,
) -> ModelsMatrix:
    """See ``SimilarityResult.models_matrix``."""
    check_choice("summary", summary, SUMMARIES)
    distance = is_distance(measure)
    if summary == "network" and measure not in _COSINES:
        raise ValueError(
            f"summary: expected another than 'network' for {measure}: it is an angle between sums "
            f"of layers' normalised Grams, whose cosines are values of {', '.join(_COSINES)} alone"
        )
    number = _SUMMARIES[summary]
    starts = np.cumsum([0, *map(len, layers)])
    parts = [slice(a, b) for a, b in pairwise(starts)]

    def of(values: Matrix) -> Matrix:
        found = np.empty((len(models), len(models)))
        for j, columns in enumerate(parts):
            for i, rows in enumerate(parts[: j + 1]):
                block = _Block(
                    values[rows, columns],
                    values[columns, rows],
                    values[rows, rows],
                    values[columns, columns],
                    layers[i],
                    layers[j],
                    (models[i], models[j]),
                    distance=distance,
                )
                found[i, j] = found[j, i] = number(block)
        return found

    found = of(value)
    left_out = [] if replicates is None else [of(values) for values in replicates]
    return ModelsMatrix(
        models=tuple(models),
        value=found,
        standard_error=error_of(found, left_out),
        summary=summary,
        measure=measure,
        distance=distance or summary == "network",
    )


@dataclass(frozen=True)
class _Block:
    """Two models: their grid both ways, those within each, and the names of their layers."""

    grid: Matrix  # (rows, columns)
    back: Matrix  # (columns, rows)
    within_rows: Matrix
    within_columns: Matrix
    rows: Sequence[str]
    columns: Sequence[str]
    names: tuple[str, str]
    distance: bool


def _same_layer(block: _Block) -> float:
    if len(block.rows) == len(block.columns):
        pairs = [(i, i) for i in range(len(block.rows))]
    else:
        place = {name: j for j, name in enumerate(block.columns)}
        pairs = [(i, place[name]) for i, name in enumerate(block.rows) if name in place]
    if not pairs:
        raise ValueError(
            "summary: expected another than 'same_layer', such as 'best_match': models "
            f"{block.names[0]!r} and {block.names[1]!r} have {len(block.rows)} and "
            f"{len(block.columns)} layers, none of one name"
        )
    return _mean(np.array([[block.grid[i, j], block.back[j, i]] for i, j in pairs]))


def _best_match(block: _Block) -> float:
    def best(grid: Matrix) -> Matrix:
        known = grid[~np.isnan(grid).all(axis=1)]
        found: Matrix = (np.nanmin if block.distance else np.nanmax)(known, axis=1)
        return found if len(known) else np.full(1, np.nan)

    return (_mean(best(block.grid)) + _mean(best(block.back))) / 2


def _all_pairs(block: _Block) -> float:
    return _mean(np.stack([block.grid, block.back.T]))


def _network(block: _Block) -> float:
    own = _mean(block.within_rows) * _mean(block.within_columns)
    if block.names[0] == block.names[1]:
        return 0.0
    if not own > 0:
        return float("nan")
    return float(np.arccos(np.clip(_all_pairs(block) / np.sqrt(own), -1.0, 1.0)))


_SUMMARIES: dict[str, Callable[[_Block], float]] = {
    "same_layer": _same_layer,
    "best_match": _best_match,
    "mean": _all_pairs,
    "network": _network,
}


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
