"""A folder with everything about one comparison: report, pictures, table and the result itself."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from repsim_fast._core.files import check_writable, replacing
from repsim_fast.comparison.result import Grid, SimilarityResult

RESULT = "result.safetensors"
TABLE = "similarities.csv"
REPORT = "report.html"
ALL_HEAT_MAPS = "heatmaps.png"


def write_folder(folder: str | os.PathLike[str], result: SimilarityResult, **report: Any) -> Path:
    """Write a comparison to ``folder``, over one that was there.

    ``report.html``, ``heatmaps.png`` with all heat maps and one PNG for each of them,
    ``similarities.csv`` with a line for each pair of layers, and ``result.safetensors``, which
    ``SimilarityResult.load`` reads.

    Args:
        folder: Made where it is missing.
        result: The comparison.
        **report: Options of ``repsim_fast.report.write_report``.

    Returns:
        The report's path.

    Raises:
        OSError: The folder cannot be written to.
    """
    from repsim_fast.plotting import plot_grids
    from repsim_fast.report.page import write_report

    path = check_writable(folder)
    result.save(path / RESULT)
    with replacing(path / TABLE) as temporary:
        result.to_dataframe().to_csv(temporary, index=False)
    grids = result.grids()
    plot_grids(grids, path=path / ALL_HEAT_MAPS)
    for name, grid in zip(_picture_names(result), grids, strict=True):
        plot_grids([grid], path=path / name)
    return write_report(path / REPORT, result, **report)


def summary_rows(result: SimilarityResult) -> list[dict[str, Any]]:
    """Key figures of each grid, for tables."""
    return [
        {
            "comparison": grid.title,
            "layers": f"{len(grid.rows)} x {len(grid.columns)}",
            "mean same layer": None
            if grid.within or not grid.is_square
            else grid.mean_same_layer(),
            "mean off-diagonal": grid.mean_off_diagonal() if grid.is_square else grid.mean(),
            "standard error": mean_error(grid),
        }
        for grid in result.grids()
    ]


def mean_error(grid: Grid) -> float:
    """Upper bound of the standard error of a grid's mean off-diagonal similarity.

    It is the mean of the cells' standard errors, which the standard error of a mean cannot exceed
    (triangle inequality), and which it reaches where all cells err together: they share their
    images. NaN where the cells have none, as with a single batch. Of a grid that is not square,
    the same for the mean of all cells.
    """
    errors = grid.standard_error
    if grid.is_square:
        errors = errors[~np.eye(len(grid.rows), dtype=bool)]
    known = errors[np.isfinite(errors)]
    return float(known.mean()) if known.size else math.nan


def _picture_names(result: SimilarityResult) -> list[str]:
    """A file name for each grid, such as ``cka-standard.png`` and ``cka-standard-robust.png``."""
    short: list[str] = []
    for model in result.models:
        name = re.sub(r"[^\w.+-]+", "_", model).strip("_")
        short.append(name if name not in short else f"{name}-{len(short) + 1}")
    of: Mapping[str, str] = dict(zip(result.models, short, strict=True))
    return [
        f"{result.measure}-{'-'.join(dict.fromkeys((of[g.row_model], of[g.column_model])))}.png"
        for g in result.grids()
    ]
