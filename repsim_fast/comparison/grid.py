"""A rectangle of similarities: the layers of one model against those of another."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt

from repsim_fast._core.checks import check_choice
from repsim_fast._core.extras import extra
from repsim_fast._core.suggestions import among
from repsim_fast.analysis.estimates import (
    Estimate,
    Interval,
    jackknife_bias,
    jackknife_error,
    student_interval,
)
from repsim_fast.similarity import measure_info, measure_names

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from repsim_fast.plotting import HeatMap, Theme

__all__ = [
    "Array",
    "Grid",
    "Matrix",
    "Mean",
    "Number",
    "error_of",
    "is_distance",
    "measure_title",
    "plot_by_distance",
    "plot_grids",
]

Array: TypeAlias = npt.NDArray[np.float64]
Matrix: TypeAlias = Array

Number = TypeVar("Number", float, Array)
"""What is made of cells: a number, or an array of them."""


class Mean(NamedTuple):
    """A mean over cells of a grid.

    Attributes:
        name: Which cells.
        value: The mean, NaN cells left out.
        standard_error: Of the mean; NaN where it is not known.
        chance: Mean chance level of the same cells; NaN where it is not known.
    """

    name: str
    value: float
    standard_error: float
    chance: float

    def in_words(self, digits: int) -> str:
        """Name and value, and the chance level where that is not 0."""
        beside = abs(self.chance) >= 0.5 * 10**-digits
        chance = f" (by chance {self.chance:.{digits}f})" if beside else ""
        return f"{self.name} {self.value:.{digits}f}{chance}"


def interval_of(
    value: Matrix,
    standard_error: Matrix,
    replicates: Array | None,  # (G, ...)
    level: float,
    *,
    less_bias: bool,
) -> Interval:
    """Confidence interval about values, or about them less their bias."""
    groups = 0 if replicates is None else len(replicates)
    if less_bias and replicates is not None:
        value = value - jackknife_bias(value, replicates)
    return student_interval(value, standard_error, groups, level)


@dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """Similarity of the layers of one model (rows) with those of another, or its own (columns).

    Args:
        row_model, column_model: Names of the models; the same one for a grid within a model.
        rows, columns: Names of the layers, in order of execution.
        value: (rows, columns) float64; NaN where a layer does not vary.
        standard_error: (rows, columns) float64; NaN where it is not known, as with one batch.
        measure: What the values are.
        replicates: (G, rows, columns) float64, values with one of G groups of the batches (or of
            the samples) left out in turn; None where they are not known.
        chance: (rows, columns) float64, mean value of samples that do not correspond; None where
            it is not known.
    """

    row_model: str
    column_model: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    value: Matrix
    standard_error: Matrix
    measure: str
    replicates: Array | None = None
    chance: Matrix | None = None

    def __repr__(self) -> str:
        return (
            f"Grid({self.measure}: {self.row_model} ({len(self.rows)} layers) x "
            f"{self.column_model} ({len(self.columns)} layers); {self.in_words()})"
        )

    def _repr_html_(self) -> str:
        """For notebooks: text and picture."""
        from repsim_fast.plotting.style import to_html

        return to_html(repr(self), self.plot())

    @property
    def title(self) -> str:
        """The models compared, as a heading."""
        if self.within:
            return f"within {self.row_model}"
        return f"{self.row_model} / {self.column_model}"

    @property
    def within(self) -> bool:
        """Whether the grid compares a model with itself."""
        return self.row_model == self.column_model

    @property
    def is_square(self) -> bool:
        """Whether both sides have as many layers, so that they can be paired by position."""
        return len(self.rows) == len(self.columns)

    def __getitem__(self, layers: tuple[str | int, str | int]) -> Estimate:
        """``grid[row, column]``: value and standard error of two layers, by name or number.

        Where replicates are known the estimate keeps them: ``estimates.difference`` of two cells of
        the same samples has the error of the difference.

        Raises:
            ValueError: There is no such layer, or they are not two.
        """
        if not isinstance(layers, tuple) or len(layers) != 2:
            raise ValueError(
                f"layers: expected grid[row, column], two layers by name or number, got {layers!r}"
            )
        row, column = layers
        i = _layer_number(row, self.rows, self.row_model)
        j = _layer_number(column, self.columns, self.column_model)
        value, error = float(self.value[i, j]), float(self.standard_error[i, j])
        if self.replicates is None:
            return Estimate(value, error)
        left_out = tuple(self.replicates[:, i, j].tolist())
        return Estimate(value, error, len(left_out) - 1, left_out)

    def mean(self) -> float:
        """Mean over all cells that are not NaN."""
        return _mean(self.value)

    def mean_off_diagonal(self) -> float:
        """Mean over pairs of layers at different positions, NaN left out.

        Raises:
            ValueError: The grid is not square, and so has no diagonal.
        """
        self._check_square()
        return _mean(self.value[~np.eye(len(self.rows), dtype=bool)])

    def mean_same_layer(self) -> float:
        """Mean over pairs of layers at the same position, NaN left out; 1 within a model.

        Raises:
            ValueError: The grid is not square, and so has no diagonal.
        """
        self._check_square()
        return _mean(self.value.diagonal())

    def mean_by_distance(self) -> Matrix:
        """Mean over pairs of layers that are k positions apart, for k = 0 ... layers - 1.

        Raises:
            ValueError: The grid is not square, and so positions do not correspond.
        """
        self._check_square()
        size = len(self.rows)
        flipped = self.value.T
        return np.array(
            [
                _mean(np.concatenate([self.value.diagonal(k), flipped.diagonal(k)]))
                for k in range(size)
            ],
            dtype=np.float64,
        )

    def standard_error_of(self, function: Callable[[Grid], Number]) -> Number:
        """Jackknife standard error of a figure that depends smoothly on the cells.

        Cells err together, since they share their samples, and the error of a mean of them follows
        from no error of single cells: it is that of the means of the replicates.

        Args:
            function: From a grid to a number or an array of them.

        Returns:
            As the function: a number or an array; NaN where there are no replicates.

        Example:
            >>> import torch
            >>> from repsim_fast import Grid, compare
            >>> model = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh())
            >>> grid = compare([model], torch.randn(64, 5), batch_size=8).between(0, 0)
            >>> error = grid.standard_error_of(Grid.mean_off_diagonal)
        """
        unknown = np.full_like(self.value, np.nan)
        bare = replace(self, standard_error=unknown, replicates=None)
        left_out = () if self.replicates is None else self.replicates
        return error_of(function(self), [function(replace(bare, value=v)) for v in left_out])

    def interval(self, level: float = 0.95, *, less_bias: bool = False) -> Interval:
        """Confidence interval of every cell, by Student's t; NaN where there is no error.

        Args:
            level: Confidence, in (0, 1).
            less_bias: About the value less what it is off on average, by the jackknife; see
                :meth:`SimilarityResult.interval`.

        Returns:
            Lower and upper limits, (rows, columns) each.
        """
        return interval_of(
            self.value, self.standard_error, self.replicates, level, less_bias=less_bias
        )

    def mean_with_error(self) -> Estimate:
        """The mean over pairs of different layers, with its standard error.

        Pairs at the same position are left out of square grids of several layers: within a model
        they are 1.
        """
        figure = self.figures()[-1]
        return Estimate(figure.value, figure.standard_error)

    def figures(self) -> list[Mean]:
        """The means that make sense for this grid, each under its own name.

        "mean off-diagonal" is over pairs of layers at different positions and the last one of every
        square grid; before it, between two models, "mean same layer" is over those at the same
        position. Grids that are not square have no diagonal, and "mean of all pairs" alone; of one
        layer each there is nothing beside the diagonal.
        """
        means = {"mean of all pairs": Grid.mean}
        if self.is_square:
            several = len(self.rows) > 1
            off_diagonal = {"mean off-diagonal": Grid.mean_off_diagonal} if several else {}
            same_layer = {} if self.within else {"mean same layer": Grid.mean_same_layer}
            means = same_layer | off_diagonal or means
        by_chance = None if self.chance is None else replace(self, value=self.chance)
        return [
            Mean(
                name,
                mean(self),
                self.standard_error_of(mean),
                float("nan") if by_chance is None else mean(by_chance),
            )
            for name, mean in means.items()
        ]

    def summary(self) -> dict[str, float]:
        """The values of :meth:`figures` by name."""
        return {figure.name: figure.value for figure in self.figures()}

    def in_words(self, digits: int = 3) -> str:
        """The figures as a text, with their chance levels where these are not 0."""
        return ", ".join(figure.in_words(digits) for figure in self.figures())

    def minus_chance(self) -> Grid:
        """The grid of values minus their chance levels, 0 for unrelated layers; errors as before.

        Raises:
            ValueError: The chance levels are not known.
        """
        if self.chance is None:
            raise ValueError(
                f"chance: expected the chance levels of {self.title}, got none (see permutations= "
                "of compare, and chance_note of the result)"
            )
        left_out = None if self.replicates is None else self.replicates - self.chance
        return replace(self, value=self.value - self.chance, replicates=left_out, chance=None)

    def to_dataframe(self, what: str = "value") -> pd.DataFrame:
        """A table with layer names along both sides.

        Args:
            what: "value", "standard_error", "chance", or "low" or "high", the ends of a 95 %
                interval.

        Raises:
            ImportError: pandas is missing.
            ValueError: Another ``what``, or it is not known.
        """
        low, high = self.interval()
        tables = {
            "value": self.value, "standard_error": self.standard_error, "chance": self.chance,
            "low": low, "high": high,
        }  # fmt: skip
        check_choice("what", what, tables)
        if tables[what] is None:
            raise ValueError(f"what: the chance levels of {self.title} are not known")
        pandas = extra("pandas", of="tables", purpose="to_dataframe()")
        rows = pandas.Index(self.rows, name=self.row_model)
        columns = pandas.Index(self.columns, name=self.column_model)
        table: pd.DataFrame = pandas.DataFrame(tables[what], index=rows, columns=columns)
        return table

    def pairs(self, *, same_layer: bool = False) -> pd.DataFrame:
        """A table with a row for each pair of layers, the most alike first.

        Args:
            same_layer: Only layers at the same position of both models, in order of depth.

        Returns:
            Columns: row, column (names of the layers), value, standard_error, chance, and low and
            high, the ends of a 95 % interval.

        Raises:
            ImportError: pandas is missing.
            ValueError: ``same_layer`` of a grid that is not square.

        Example:
            >>> import torch
            >>> from repsim_fast import compare
            >>> a, b = (torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh()) for _ in "ab")
            >>> grid = compare(a, b, torch.randn(64, 5), names=["a", "b"])["a", "b"]
            >>> list(grid.pairs(same_layer=True)["row"])
            ['0', '1']
        """
        if same_layer:
            self._check_square()
        pandas = extra("pandas", of="tables", purpose="pairs()")
        low, high = self.interval()
        chance = np.full_like(self.value, np.nan) if self.chance is None else self.chance
        chosen = np.eye(len(self.rows), dtype=bool) if same_layer else np.ones_like(low, dtype=bool)
        i, j = np.nonzero(chosen)
        columns = {
            "value": self.value, "standard_error": self.standard_error, "chance": chance,
            "low": low, "high": high,
        }  # fmt: skip
        names = {"row": [self.rows[k] for k in i], "column": [self.columns[k] for k in j]}
        table: pd.DataFrame = pandas.DataFrame(
            names | {name: matrix[i, j] for name, matrix in columns.items()}
        )
        if same_layer:
            return table
        nearest_first = is_distance(self.measure)
        return table.sort_values("value", ascending=nearest_first, kind="stable", ignore_index=True)

    def plot(
        self,
        *,
        standard_error: bool = False,
        path: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Figure:
        """Heat map; see :func:`plot_grids`."""
        return plot_grids([self], standard_error=standard_error, path=path, **options)

    def heat_map(self) -> HeatMap:
        """What :func:`repsim_fast.plotting.plot_heat_maps` draws."""
        from repsim_fast.plotting import HeatMap

        figures = [figure.in_words(digits=2) for figure in self.figures()]
        return HeatMap(
            value=self.value,
            rows=self.rows,
            columns=self.columns,
            row_label=f"{self.row_model}, depth →",
            column_label=f"{self.column_model}, depth →",
            title=self.title,
            # More than one with its chance level is wider than a panel.
            note=", ".join(figures[-1:] if "by chance" in figures[-1] else figures),
            standard_error=self.standard_error,
        )

    def _check_square(self) -> None:
        if not self.is_square:
            raise ValueError(
                f"grid must have as many rows as columns, got {len(self.rows)} layers of "
                f"{self.row_model!r} and {len(self.columns)} of {self.column_model!r}"
            )


def _layer_number(layer: str | int, names: tuple[str, ...], model: str) -> int:
    if isinstance(layer, str):
        return names.index(among(f"{model!r} has no layer", layer, names))
    if -len(names) <= layer < len(names):
        return layer
    raise ValueError(f"{model!r} has {len(names)} layers, got number {layer}")


def _mean(values: Matrix) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def error_of(number: Number, left_out: Sequence[Number]) -> Number:
    """Jackknife standard error of a number from its values without each group of samples; NaN
    where there are none."""
    unknown: Any = np.full_like(number, np.nan, dtype=np.float64)
    error: Any = jackknife_error(left_out) if left_out else unknown
    return cast(Number, error[()])


def measure_title(grids: Sequence[Grid]) -> str:
    """What the grids show, spelt out."""
    known = measure_names()
    titles = (
        measure_info(grid.measure).title if grid.measure in known else grid.measure
        for grid in grids
    )
    return " / ".join(dict.fromkeys(titles))


def is_distance(measure: str) -> bool:
    """Whether a measure of that name is a distance, so that less is more alike."""
    return measure in measure_names() and measure_info(measure).kind == "distance"


def plot_grids(grids: Sequence[Grid], *, minus_chance: bool = False, **options: Any) -> Figure:
    """Heat maps of one or more grids on one colour scale: from 0 to 1, for distances to the
    largest one.

    Layers run upwards and to the right, in order of execution.

    Args:
        grids: From ``SimilarityResult.between`` or ``.grids()``.
        minus_chance: Draw the values minus their chance levels. Distances are at most 0 then, from
            the lowest one on.
        **options: Of :func:`repsim_fast.plotting.plot_heat_maps`: standard_error, columns, title,
            theme, colormap, path.

    Returns:
        A ``matplotlib.figure.Figure``, to be saved or drawn on; pyplot knows nothing of it.

    Raises:
        ValueError: No grid, no chance levels, an unknown theme, or a suffix matplotlib cannot
            write.
        OSError: The place cannot be written to.
    """
    from repsim_fast.plotting import plot_heat_maps

    if not grids:
        raise ValueError("grids must be at least one, got none")
    label = measure_title(grids)
    limits = (0.0, _largest(grids))
    if minus_chance:
        grids = [grid.minus_chance() for grid in grids]
        label += " minus chance level"
        if any(is_distance(grid.measure) for grid in grids):
            limits = (-_largest([replace(grid, value=-grid.value) for grid in grids]), 0.0)
    maps = [grid.heat_map() for grid in grids]
    return plot_heat_maps(maps, label=label, limits=limits, **options)


def plot_by_distance(
    grids: Sequence[Grid],
    *,
    theme: Theme = "light",
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Mean similarity against the distance between layers, a line for each square grid, with a
    band of one standard error.

    A network whose layers are specialised falls quickly; block structure shows as a slow fall.

    Args:
        grids: Grids with as many rows as columns; others are left out.
        theme: "light" or "dark" background.
        path: Also write the figure to this file.

    Raises:
        ValueError: No square grid, or an unknown theme.
        OSError: The place cannot be written to.
    """
    from repsim_fast.plotting import Curve, plot_curves

    square = [grid for grid in grids if grid.is_square]
    if not square:
        raise ValueError("grids must have one with as many rows as columns, got none")
    curves = []
    for grid in square:
        start = 1 if grid.within else 0  # a layer equals itself, which is no finding
        mean = grid.mean_by_distance()[start:]
        error = grid.standard_error_of(Grid.mean_by_distance)[start:]
        curves.append(Curve(mean, grid.title, start, error, dashed=not grid.within))
    return plot_curves(
        curves,
        x_label="layers apart",
        y_label=f"mean {measure_title(square)}",
        top=_largest(square),
        theme=theme,
        path=path,
    )


def _largest(grids: Sequence[Grid]) -> float:
    """The upper end of the scale: 1 for similarities, the largest value for distances."""
    if not any(is_distance(grid.measure) for grid in grids):
        return 1.0
    return max(float(g.value[np.isfinite(g.value)].max(initial=0.0)) for g in grids) or 1.0
