"""A rectangle of similarities: the layers of one model against those of another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
import numpy.typing as npt
import torch

from repsim_fast.similarity.inference import jackknife_error

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Array", "Grid", "Matrix", "Number", "error_of"]

Array: TypeAlias = npt.NDArray[np.float64]
Matrix: TypeAlias = Array

Number = TypeVar("Number", float, Array)
"""What is made of cells: a number, or an array of them."""


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
    """

    row_model: str
    column_model: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    value: Matrix
    standard_error: Matrix
    measure: str
    replicates: Array | None = None

    def __repr__(self) -> str:
        summary = ", ".join(f"{key} {value:.3f}" for key, value in self.summary().items())
        return (
            f"Grid({self.measure}: {self.row_model} ({len(self.rows)} layers) x "
            f"{self.column_model} ({len(self.columns)} layers); {summary})"
        )

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

    def summary(self) -> dict[str, float]:
        """The figures that make sense for this grid, by name."""
        if not self.is_square:
            return {"mean": self.mean()}
        if self.within:
            return {"mean off-diagonal": self.mean_off_diagonal()}
        return {
            "mean same layer": self.mean_same_layer(),
            "mean off-diagonal": self.mean_off_diagonal(),
        }

    def to_dataframe(self) -> pd.DataFrame:
        """The values as a table with layer names along both sides."""
        import pandas as pd

        rows = pd.Index(self.rows, name=self.row_model)
        return pd.DataFrame(
            self.value, index=rows, columns=pd.Index(self.columns, name=self.column_model)
        )

    def plot(self, *, standard_error: bool = False, path: Any = None, **options: Any) -> Figure:
        """Heat map; see :func:`repsim_fast.plotting.plot_grids`."""
        from repsim_fast.plotting import plot_grids

        return plot_grids([self], standard_error=standard_error, path=path, **options)

    def _check_square(self) -> None:
        if not self.is_square:
            raise ValueError(
                f"grid must have as many rows as columns, got {len(self.rows)} layers of "
                f"{self.row_model!r} and {len(self.columns)} of {self.column_model!r}"
            )


def _mean(values: Matrix) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def error_of(number: Number, left_out: Sequence[Number]) -> Number:
    """Jackknife standard error of a number from its values without each group of samples; NaN
    where there are none."""
    if not left_out:
        unknown: Any = np.full_like(number, np.nan, dtype=np.float64)[()]
        return cast(Number, unknown)
    values = torch.from_numpy(np.array(left_out, dtype=np.float64))
    error: Any = jackknife_error(values).numpy()[()]
    return cast(Number, error)
