"""A folder with everything about one comparison: report, pictures, table and the result itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from repsim_fast._core.files import check_writable
from repsim_fast._core.locks import only_writer
from repsim_fast.comparison.grid import plot_grids
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.report.names import file_names
from repsim_fast.report.page import write_report
from repsim_fast.report.swap import changed_as_one, check, finish

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
    outdated: Sequence[str] = (),
    **report: Any,
) -> Path:
    """Write a comparison to ``folder``, over one that was there.

    ``report.html``, ``heatmaps.png`` with all heat maps and one PNG for each of them,
    ``similarities.csv`` with a line for each pair of layers, and ``result.safetensors``, which
    ``SimilarityResult.load`` reads. The folder changes as one: all is written beside first, and
    what an earlier comparison left there goes with it. ``manifest.json``, the last to come, lists
    the files and their SHA-256.

    Args:
        folder: Made where it is missing.
        result: The comparison.
        minus_chance: Draw heat maps of the values minus their chance levels as well, in the report
            and as ``heatmaps-minus-chance.png``.
        outdated: Names of further files that this comparison makes worthless.
        **report: Options of ``repsim_fast.report.write_report``.

    Returns:
        The report's path.

    Raises:
        ValueError: ``minus_chance`` without chance levels.
        OSError: The folder cannot be written to, or someone else is writing to it.
    """
    path = check_writable(folder)
    with only_writer(path), changed_as_one(path, outdated) as new:
        result.save(new / RESULT)
        result.to_csv(new / TABLE)
        grids = result.grids()
        plot_grids(grids, path=new / ALL_HEAT_MAPS)
        if minus_chance:
            plot_grids(grids, minus_chance=True, path=new / MINUS_CHANCE)
        for name, grid in zip(_picture_names(result), grids, strict=True):
            plot_grids([grid], path=new / name)
        write_report(new / REPORT, result, minus_chance=minus_chance, **report)
    return path / REPORT


def load_folder(folder: str | os.PathLike[str]) -> SimilarityResult:
    """The comparison in a folder that :func:`write_folder` wrote, of which all files are there.

    A change that a kill interrupted between the first file and the last is finished first.

    Raises:
        FileNotFoundError: There is no manifest.
        ValueError: Files that are missing or other than the manifest says.
        OSError: Someone is writing to the folder.
    """
    path = Path(folder)
    with only_writer(path):
        finish(path)
        check(path, RESULT)
        return SimilarityResult.load(path / RESULT)


def _picture_names(result: SimilarityResult) -> list[str]:
    """A file name for each grid, such as ``cka-standard.png`` and ``cka-standard-robust.png``."""
    parts = [
        (result.measure, *dict.fromkeys((grid.row_model, grid.column_model)))
        for grid in result.grids()
    ]
    return file_names(parts, ".png", taken=(ALL_HEAT_MAPS, MINUS_CHANCE))
