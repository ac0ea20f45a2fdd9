"""A folder with everything about one comparison: report, figures, table and the result itself."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from repsim_fast._core.files import check_writable
from repsim_fast._core.locks import only_writer
from repsim_fast.comparison.csv_lines import of_names, of_numbers, write_lines
from repsim_fast.comparison.grid import plot_grids
from repsim_fast.comparison.overview import MODELS_OF_A_SHEET, plot_overview
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.comparison.storage import FILE_NAME as RESULT
from repsim_fast.comparison.storage import check_one
from repsim_fast.report.names import file_names
from repsim_fast.report.page import write_report
from repsim_fast.report.swap import changed_as_one, check, finish

TABLE = "similarities.csv"
TABLE_OF_MODELS = "models.csv"
REPORT = "report.html"
ALL_HEAT_MAPS = "heatmaps.png"
MINUS_CHANCE = "heatmaps-minus-chance.png"


def write_folder(
    folder: str | os.PathLike[str],
    results: SimilarityResult | Mapping[str, SimilarityResult],
    *,
    figures: bool = True,
    minus_chance: bool = False,
    outdated: Sequence[str] = (),
    **report: Any,
) -> Path:
    """Write a comparison to ``folder``, over one that was there.

    ``report.html``, a page that shows any pair of models; ``heatmaps.png`` with all heat maps, of
    more than three models with one cell a pair of models (:func:`write_figures` draws single
    ones); ``models.csv`` with the means of each model and pair of models; of at most three models
    ``similarities.csv`` with a line for each pair of layers, of which zoos have millions
    (:func:`write_table` writes it of any); and ``result.safetensors``, which
    ``SimilarityResult.load`` reads. Of several results, such as those of several measures,
    the page has a switch, and all else is in a folder each, of the result's name. A folder changes
    as one: all is written beside first, and what an earlier comparison left there goes with it.
    ``manifest.json``, the last to come, lists the files and their SHA-256.

    Args:
        folder: Made where it is missing.
        results: One result, or several by name.
        figures: Draw PNGs; the page draws itself.
        minus_chance: Draw heat maps of the values minus their chance levels as well, of at most
            three models, as ``heatmaps-minus-chance.png``; of several results those that have
            chance levels.
        outdated: Names of further files that this comparison makes worthless.
        **report: Options of ``repsim_fast.report.write_report``.

    Returns:
        The report's path.

    Raises:
        ImportError: plotly or jinja2 is missing.
        ValueError: ``minus_chance`` of one result without chance levels.
        OSError: The folder cannot be written to, or someone else is writing to it.
    """
    path = check_writable(folder)
    if isinstance(results, SimilarityResult):
        if minus_chance:
            results.between(0, 0).minus_chance()
        with only_writer(path), changed_as_one(path, outdated) as new:
            _write_files(new, results, figures, minus_chance)
            write_report(new / REPORT, results, **report)
        return path / REPORT
    for name, result in results.items():
        place = check_writable(path / name)
        with only_writer(place), changed_as_one(place, outdated) as new:
            _write_files(new, result, figures, minus_chance and result.chance is not None)
    with only_writer(path), changed_as_one(path, outdated) as new:
        write_report(new / REPORT, results, **report)
    return path / REPORT


def load_folder(folder: str | os.PathLike[str]) -> SimilarityResult:
    """The comparison in a folder that :func:`write_folder` wrote, of which all files are there.

    A change that a kill interrupted between the first file and the last is finished first.

    Raises:
        FileNotFoundError: There is no manifest, or results of several measures in folders inside.
        ValueError: Files that are missing or other than the manifest says.
        OSError: Someone is writing to the folder.
    """
    path = Path(folder)
    with only_writer(path):
        finish(path)
        check_one(path)
        check(path, RESULT)
        return SimilarityResult.load(path / RESULT)


def write_figures(folder: str | os.PathLike[str], result: SimilarityResult) -> list[Path]:
    """Write a heat map (PNG) of each model and of each pair of models to ``folder``.

    Args:
        folder: Made where it is missing; files of the same names are written over.
        result: The comparison.

    Returns:
        Their paths, such as ``cka-standard.png`` and ``cka-standard-robust.png``.

    Raises:
        OSError: The folder cannot be written to.
    """
    place = check_writable(folder)
    paths = [place / name for name in _picture_names(result)]
    for path, grid in zip(paths, result.grids(), strict=True):
        plot_grids([grid], path=path)
    return paths


def write_table(folder: str | os.PathLike[str], result: SimilarityResult) -> Path:
    """Write ``similarities.csv``, a line for each pair of layers, to ``folder``.

    Args:
        folder: Made where it is missing; a file of that name is written over.
        result: The comparison; of L layers of all its models, L² lines of some 120 bytes.

    Returns:
        The table's path.

    Raises:
        OSError: The folder cannot be written to.
    """
    return result.to_csv(check_writable(folder) / TABLE)


def _write_files(folder: Path, result: SimilarityResult, figures: bool, minus_chance: bool) -> None:
    """All of a result but the page."""
    result.save(folder / RESULT)
    _write_table_of_models(folder / TABLE_OF_MODELS, result)
    if len(result.models) <= MODELS_OF_A_SHEET:
        result.to_csv(folder / TABLE)
    if figures:
        _write_sheets(folder, result, minus_chance)


def _write_table_of_models(path: Path, result: SimilarityResult) -> None:
    """The means of each grid, one a line."""
    columns = ("model_a", "model_b", "mean", "value", "standard_error", "chance")
    lines = (
        f"{of_names(grid.row_model, grid.column_model, mean.name)},"
        f"{of_numbers([mean.value, mean.standard_error, mean.chance])}"
        for grid in result.grids()
        for mean in grid.figures()
    )
    write_lines(path, columns, lines)


def _write_sheets(folder: Path, result: SimilarityResult, minus_chance: bool) -> None:
    if len(result.models) > MODELS_OF_A_SHEET:
        plot_overview(result, path=folder / ALL_HEAT_MAPS)
        return
    grids = result.grids()
    plot_grids(grids, path=folder / ALL_HEAT_MAPS)
    if minus_chance:
        plot_grids(grids, minus_chance=True, path=folder / MINUS_CHANCE)


def _picture_names(result: SimilarityResult) -> list[str]:
    """A file name for each grid."""
    parts = [
        (result.measure, *dict.fromkeys((grid.row_model, grid.column_model)))
        for grid in result.grids()
    ]
    return file_names(parts, ".png", taken=(ALL_HEAT_MAPS, MINUS_CHANCE))
