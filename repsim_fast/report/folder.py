"""A folder with everything about one comparison: report, pictures, table and the result itself."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from repsim_fast._core.files import check_writable
from repsim_fast.comparison.grid import plot_grids
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.report.page import write_report

RESULT = "result.safetensors"
TABLE = "similarities.csv"
REPORT = "report.html"
ALL_HEAT_MAPS = "heatmaps.png"
MINUS_CHANCE = "heatmaps-minus-chance.png"


def write_folder(
    folder: str | os.PathLike[str],
    result: SimilarityResult,
    *,
    minus_chance: bool = False,
    **report: Any,
) -> Path:
    """Write a comparison to ``folder``, over one that was there.

    ``report.html``, ``heatmaps.png`` with all heat maps and one PNG for each of them,
    ``similarities.csv`` with a line for each pair of layers, and ``result.safetensors``, which
    ``SimilarityResult.load`` reads.

    Args:
        folder: Made where it is missing.
        result: The comparison.
        minus_chance: Draw heat maps of the values minus their chance levels as well, in the report
            and as ``heatmaps-minus-chance.png``.
        **report: Options of ``repsim_fast.report.write_report``.

    Returns:
        The report's path.

    Raises:
        ValueError: ``minus_chance`` without chance levels.
        OSError: The folder cannot be written to.
    """
    path = check_writable(folder)
    result.save(path / RESULT)
    result.to_csv(path / TABLE)
    grids = result.grids()
    plot_grids(grids, path=path / ALL_HEAT_MAPS)
    if minus_chance:
        plot_grids(grids, minus_chance=True, path=path / MINUS_CHANCE)
    for name, grid in zip(_picture_names(result), grids, strict=True):
        plot_grids([grid], path=path / name)
    return write_report(path / REPORT, result, minus_chance=minus_chance, **report)


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
