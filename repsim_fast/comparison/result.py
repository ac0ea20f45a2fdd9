"""The labelled result of a comparison: look at it, plot it, save it, load it."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from repsim_fast._core.files import replacing

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

__all__ = ["Grid", "SimilarityResult", "versions"]

Matrix: TypeAlias = npt.NDArray[np.float64]

_FORMAT = "repsim_fast.SimilarityResult"
_FORMAT_VERSION = 1


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    import repsim_fast

    return {
        "repsim_fast": repsim_fast.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }


@dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """Similarity of the layers of one model (rows) with those of another, or its own (columns).

    Args:
        row_model, column_model: Names of the models; the same one for a grid within a model.
        rows, columns: Names of the layers, in order of execution.
        value: (rows, columns) float64; NaN where a layer does not vary.
        standard_error: (rows, columns) float64; NaN where it is not known, as with one batch.
        measure: What the values are.
    """

    row_model: str
    column_model: str
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    value: Matrix
    standard_error: Matrix
    measure: str

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


@dataclass(frozen=True, eq=False, repr=False)
class SimilarityResult:
    """Similarity of every layer of every model with every other.

    Args:
        models: Names of the models.
        layers: Names of each model's layers, in order of execution.
        value: (L, L) float64 over all layers, model after model; NaN where a layer is constant.
        standard_error: (L, L) float64; NaN where it is not known, as with a single batch.
        measure: What the values are.
        estimator: How they were estimated.
        n_samples: Samples used, over all passes.
        n_batches: Batches used.
        settings: Arguments of the comparison, as plain data; and of CKA, as "products", what the
            Gram products were taken in: "float64", "float32", "tf32", "bfloat16" or "int16", as
            which the CPU computes those of bfloat16 where it can (see ``ops.centered_gram``).
        versions: Versions of the software.
        seconds: Wall time in total, of transformed inputs, forward passes (with what is computed
            inside them) and the combination of pairs.

    Raises:
        ValueError: Names and matrices that do not fit together.
    """

    models: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    value: Matrix
    standard_error: Matrix
    measure: str
    estimator: str
    n_samples: int
    n_batches: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        size = sum(map(len, self.layers))
        if len(self.layers) != len(self.models) or len(set(self.models)) != len(self.models):
            raise ValueError(
                f"models must be different names, one for each of {len(self.layers)} lists of "
                f"layers, got {self.models}"
            )
        for name in ("value", "standard_error"):
            if getattr(self, name).shape != (size, size):
                raise ValueError(
                    f"{name} must have shape ({size}, {size}), one row for each layer, "
                    f"got {getattr(self, name).shape}"
                )

    def __repr__(self) -> str:
        models = ", ".join(
            f"{model} ({len(layers)} layers)"
            for model, layers in zip(self.models, self.layers, strict=True)
        )
        lines = [
            f"SimilarityResult: {self.measure}, {self.estimator}, {self.n_samples} samples in "
            f"{self.n_batches} batches",
            f"  models: {models}",
        ]
        lines += [f"  {grid.title}: {_figures(grid)}" for grid in self.grids()]
        lines.append("  .plot()  .between(a, b)  .to_dataframe()  .save(path)")
        return "\n".join(lines)

    @property
    def constant_layers(self) -> tuple[tuple[str, str], ...]:
        """(model, layer) of the layers that do not vary over the data."""
        pairs = zip(self.models, self.layers, strict=True)
        labels = [(model, layer) for model, layers in pairs for layer in layers]
        return tuple(labels[i] for i in np.flatnonzero(np.isnan(self.value.diagonal())))

    def between(self, a: str | int, b: str | int) -> Grid:
        """The layers of model ``a`` (rows) against those of model ``b`` (columns).

        Args:
            a: Name or number of a model.
            b: Name or number of a model, which may be the same.

        Raises:
            ValueError: There is no such model.
        """
        i, j = self._number("a", a), self._number("b", b)
        starts = np.cumsum([0, *map(len, self.layers)])
        cells = np.s_[starts[i] : starts[i + 1], starts[j] : starts[j + 1]]
        return Grid(
            row_model=self.models[i],
            column_model=self.models[j],
            rows=self.layers[i],
            columns=self.layers[j],
            value=self.value[cells],
            standard_error=self.standard_error[cells],
            measure=self.measure,
        )

    def grids(self) -> list[Grid]:
        """One grid within each model, then one for each pair of models."""
        numbers = range(len(self.models))
        pairs = [(i, i) for i in numbers] + [(i, j) for i in numbers for j in numbers if i < j]
        return [self.between(i, j) for i, j in pairs]

    def to_dataframe(self) -> pd.DataFrame:
        """One line for each ordered pair of layers.

        Columns: model_a, layer_a, model_b, layer_b, value, standard_error.
        """
        import pandas as pd

        model = np.repeat(np.array(self.models, dtype=object), [len(ls) for ls in self.layers])
        layer = np.array([name for names in self.layers for name in names], dtype=object)
        size = len(layer)
        return pd.DataFrame(
            {
                "model_a": np.repeat(model, size),
                "layer_a": np.repeat(layer, size),
                "model_b": np.tile(model, size),
                "layer_b": np.tile(layer, size),
                "value": self.value.ravel(),
                "standard_error": self.standard_error.ravel(),
            }
        )

    def plot(
        self,
        a: str | int | None = None,
        b: str | int | None = None,
        *,
        standard_error: bool = False,
        path: str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> Figure:
        """Heat map of model ``a`` against model ``b``.

        Without names: one model against itself, two against one another, of more all grids in
        one figure.

        Args:
            a: Name or number of the model along the rows.
            b: Name or number of the model along the columns; default ``a``.
            standard_error: Add a panel with the standard errors.
            path: Also write the figure to this file.
            **options: Further options of :func:`repsim_fast.plotting.plot_grids`.
        """
        from repsim_fast.plotting import plot_grids

        if a is not None:
            grids = [self.between(a, a if b is None else b)]
        elif b is not None:
            raise ValueError("a must be given with b, got None")
        elif len(self.models) <= 2:
            grids = [self.between(0, -1)]
        else:
            grids = self.grids()
        return plot_grids(grids, standard_error=standard_error, path=path, **options)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to a safetensors file, whole or not at all; ``.npz``-like but without pickle.

        The two matrices are float64 tensors, everything else is JSON in the file's metadata.

        Raises:
            OSError: The place cannot be written to.
        """
        from safetensors.numpy import save_file

        arrays = {"value": self.value, "standard_error": self.standard_error}
        others = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in arrays
        }
        metadata = {
            "format": _FORMAT,
            "format_version": str(_FORMAT_VERSION),
            "result": json.dumps(others, ensure_ascii=False),
        }
        contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        with replacing(path) as temporary:
            save_file(contiguous, temporary, metadata)
        return Path(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> SimilarityResult:
        """Read what :meth:`save` wrote.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: It is no such file, damaged, or of a later version of the format.
        """
        from safetensors import SafetensorError, safe_open

        if not Path(path).is_file():
            raise FileNotFoundError(f"there is no file {str(path)!r}")
        try:
            with safe_open(path, framework="numpy") as file:
                metadata = file.metadata() or {}
                if metadata.get("format") != _FORMAT:
                    raise ValueError("it was not written by SimilarityResult.save")
                if int(metadata["format_version"]) > _FORMAT_VERSION:
                    raise ValueError("it was written by a later version of repsim_fast")
                others = json.loads(metadata["result"])
                others["models"] = tuple(others["models"])
                others["layers"] = tuple(map(tuple, others["layers"]))
                arrays = {n: file.get_tensor(n) for n in ("value", "standard_error")}
                return cls(**others, **arrays)
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"cannot load a result from {str(path)!r}: {error}") from error

    def _number(self, argument: str, model: str | int) -> int:
        if isinstance(model, str):
            if model in self.models:
                return self.models.index(model)
        elif isinstance(model, (int, np.integer)) and -len(self.models) <= model < len(self.models):
            return int(model) % len(self.models)
        raise ValueError(
            f"{argument} must be a model of {self.models} or its number, got {model!r}"
        )


def _figures(grid: Grid) -> str:
    return ", ".join(f"{key} {value:.3f}" for key, value in grid.summary().items())
