"""Pictures of similarities: figures that are returned, never shown, and touch no global state."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repsim_fast._core.checks import check_choice
from repsim_fast._core.files import replacing
from repsim_fast.comparison.grid import Grid, Matrix
from repsim_fast.similarity import measure_info, measure_names

__all__ = ["Theme", "measure_name", "plot_by_distance", "plot_grids", "to_png"]

Theme = Literal["light", "dark"]


class _Colours(NamedTuple):
    text: str
    faint: str
    background: str
    unknown: str


_THEMES = {
    "light": _Colours("#1f2328", "#d0d7de", "#ffffff", "#c4cad1"),
    "dark": _Colours("#e6edf3", "#3d444d", "#0d1117", "#565d66"),
}
# Okabe and Ito's palette, distinct also to the colour-blind; readable on both backgrounds.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")

_MEASURE_NAMES = {"cka": "linear CKA"}

_POINTS = 72.0  # an inch
_SMALLEST_TEXT = 6.0  # points; smaller labels cannot be read on paper
_LARGEST_TEXT = 9.0
_CELL = 0.125  # wanted side of a cell: one line of the smallest text, in inches like all below
_LARGEST_PANEL = {1: 8.0, 2: 6.5}  # by panels in a row; more of them: 5.5
_SMALLEST_PANEL = 2.6
_ABOVE, _BESIDE, _GAP, _BAR, _BAR_LABELS = 0.5, 0.3, 0.25, 0.16, 0.75


class _Picture(Figure):
    """A figure that notebooks display without pyplot."""

    def _repr_png_(self) -> bytes:
        return to_png(self)


def plot_grids(
    grids: Sequence[Grid],
    *,
    standard_error: bool = False,
    columns: int = 3,
    title: str | None = None,
    theme: Theme = "light",
    colormap: str = "magma",
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Heat maps of one or more grids, all on one colour scale: from 0 to 1, for distances to the
    largest one.

    Layers run upwards and to the right, in order of execution. Values slightly outside of 0 to 1,
    which unbiased estimates can have, are not changed: they take the colour of the end of the
    scale, and the scale says how far they go. Cells without a value are grey.

    Args:
        grids: From ``SimilarityResult.between`` or ``.grids()``.
        standard_error: Add a panel with the standard error to each grid.
        columns: Heat maps in a row at most.
        title: Heading of the figure.
        theme: "light" or "dark" background.
        colormap: Name of a matplotlib colour map.
        path: Also write the figure to this file, in the format of its suffix.

    Returns:
        A ``matplotlib.figure.Figure``, to be saved or drawn on; pyplot knows nothing of it.

    Raises:
        ValueError: No grid, an unknown theme, or a suffix matplotlib cannot write.
        OSError: The place cannot be written to.
    """
    check_choice("theme", theme, _THEMES)
    if not grids:
        raise ValueError("grids must be at least one, got none")
    grids = [_plain(grid) for grid in grids]
    colours = _THEMES[theme]
    sheet = _Sheet(grids, min(columns, len(grids)), repeats=2 if standard_error else 1)
    top = 0.4 if title else 0.05
    figure = _Picture(figsize=(sheet.width, sheet.height + top), facecolor=colours.background)
    if title:
        figure.text(
            0.5, 1 - 0.1 / figure.get_figheight(), title,
            ha="center", va="top", color=colours.text, fontsize=13,
        )  # fmt: skip
    values = [grid.value for grid in grids]
    label = measure_name(grids)
    _draw(figure, sheet, 0, values, colormap, _scale(grids), label, colours)
    if standard_error:
        errors = [grid.standard_error for grid in grids]
        largest = max((float(np.nanmax(e)) for e in errors if np.isfinite(e).any()), default=1.0)
        limits = (0.0, largest or 1.0)
        _draw(figure, sheet, 1, errors, "viridis", limits, f"standard error of {label}", colours)
    return _finish(figure, path)


class _Sheet:
    """Where panels go, in inches from the lower left corner: cells of one size everywhere.

    Laid out by hand because the sizes are known: cells are square and labels are as long as
    their texts. matplotlib's own layouts leave fixed-aspect panels overlapping or cut off.
    """

    def __init__(self, grids: Sequence[Grid], n_columns: int, *, repeats: int) -> None:
        self.grids = grids
        self.n_columns = n_columns
        self.repeats = repeats
        most = max(max(grid.value.shape) for grid in grids)
        largest = _LARGEST_PANEL.get(n_columns, 5.5)
        self.cell = float(np.clip(_CELL, _SMALLEST_PANEL / most, largest / most))
        self.every = math.ceil((_SMALLEST_TEXT + 1) / (self.cell * _POINTS))
        pitch = self.cell * _POINTS * self.every
        self.text_size = float(np.clip(0.8 * pitch, _SMALLEST_TEXT, _LARGEST_TEXT))
        rows = [grids[i : i + n_columns] for i in range(0, len(grids), n_columns)]
        self._left = [
            _BESIDE + max(self._length(g.rows) for g in grids[column::n_columns])
            for column in range(n_columns)
        ]
        self._widths = [
            max(_SMALLEST_PANEL, self.cell * max(len(g.columns) for g in grids[column::n_columns]))
            for column in range(n_columns)
        ]
        self._below = [_BESIDE + max(self._length(g.columns) for g in row) for row in rows]
        self._heights = [self.cell * max(len(g.rows) for g in row) for row in rows]
        self.width = sum(self._left) + sum(self._widths) + n_columns * _GAP + _BAR + _BAR_LABELS
        self._block = sum(self._below) + sum(self._heights) + len(rows) * _ABOVE
        self.height = repeats * self._block + 0.1

    def _length(self, labels: Sequence[str]) -> float:
        # DejaVu Sans, matplotlib's own typeface, is about 0.6 of its size wide on average.
        return 0.6 * self.text_size / _POINTS * max(map(len, labels)) + 0.1

    def panel(self, number: int, repeat: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel."""
        grid = self.grids[number]
        row, column = divmod(number, self.n_columns)
        width, height = self.cell * len(grid.columns), self.cell * len(grid.rows)
        left = sum(self._left[: column + 1]) + sum(self._widths[:column]) + column * _GAP
        above = sum(self._below[:row]) + sum(self._heights[:row]) + (row + 1) * _ABOVE
        top = self.height - repeat * self._block - above
        return left + (self._widths[column] - width) / 2, top - height, width, height

    def bar(self, repeat: int) -> tuple[float, float, float, float]:
        """Place of the colour bar beside the first row of panels."""
        _, bottom, _, height = self.panel(0, repeat)
        wanted = min(4.0, max(height, _SMALLEST_PANEL * 0.8))
        left = self.width - _BAR - _BAR_LABELS
        return left, bottom + (height - wanted) / 2, _BAR, wanted


def measure_name(grids: Sequence[Grid]) -> str:
    """What the grids show, spelt out."""
    names = (_MEASURE_NAMES.get(g.measure, g.measure.replace("_", " ")) for g in grids)
    return " / ".join(dict.fromkeys(names))


def _scale(grids: Sequence[Grid]) -> tuple[float, float]:
    """Ends of the scale: 0 and 1 for similarities, 0 and the largest value for distances."""
    measures = {grid.measure for grid in grids} & set(measure_names())
    if not any(measure_info(name).kind == "distance" for name in measures):
        return 0.0, 1.0
    largest = max(float(g.value[np.isfinite(g.value)].max(initial=0.0)) for g in grids)
    return 0.0, largest or 1.0


def _add_axes(figure: Figure, place: tuple[float, float, float, float]) -> Axes:
    width, height = figure.get_size_inches()
    left, bottom, wide, high = place
    return figure.add_axes((left / width, bottom / height, wide / width, high / height))


def _draw(
    figure: Figure,
    sheet: _Sheet,
    repeat: int,
    values: Sequence[Matrix],
    colormap: str,
    limits: tuple[float, float],
    label: str,
    colours: _Colours,
) -> None:
    """One heat map for each grid, and a colour bar for all of them."""
    cmap = mpl.colormaps[colormap].with_extremes(bad=colours.unknown)
    image: Any = None
    for number, (grid, value) in enumerate(zip(sheet.grids, values, strict=True)):
        ax = _add_axes(figure, sheet.panel(number, repeat))
        image = ax.imshow(
            np.ma.masked_invalid(value),
            cmap=cmap,
            vmin=limits[0],
            vmax=limits[1],
            origin="lower",
            interpolation="nearest",
            aspect="auto",
        )
        _label_axes(ax, grid, sheet, colours)
        if repeat == 0:
            summary = ", ".join(f"{name} {value:.2f}" for name, value in grid.summary().items())
            ax.text(
                0.5, _height_above(ax, 0.07), summary,
                transform=ax.transAxes, ha="center", color=colours.text, fontsize=8,
            )  # fmt: skip
        ax.text(
            0.5, _height_above(ax, 0.22 if repeat == 0 else 0.07), grid.title,
            transform=ax.transAxes, ha="center", color=colours.text, fontsize=10, fontweight="bold",
        )  # fmt: skip
    known = np.concatenate([value[np.isfinite(value)] for value in values])
    missing = any(np.isnan(value).any() for value in values)
    _colour_bar(_add_axes(figure, sheet.bar(repeat)), image, label, limits, known, missing, colours)


def _plain(grid: Grid) -> Grid:
    """The grid with names that matplotlib takes for no formula, whatever dollar signs they have."""
    row, column, *names = (
        tuple(str(name).replace("$", r"\$") for name in several)
        for several in ([grid.row_model], [grid.column_model], grid.rows, grid.columns)
    )
    return replace(grid, row_model=row[0], column_model=column[0], rows=names[0], columns=names[1])


def _height_above(ax: Axes, inches: float) -> float:
    """Height above an axes, in units of its height."""
    return 1 + inches * ax.figure.dpi / ax.get_window_extent().height


def _label_axes(ax: Axes, grid: Grid, sheet: _Sheet, colours: _Colours) -> None:
    for axis, names in ((ax.xaxis, grid.columns), (ax.yaxis, grid.rows)):
        chosen = range(0, len(names), sheet.every)
        axis.set_ticks(chosen, [names[i] for i in chosen], fontsize=sheet.text_size)
    ax.tick_params(axis="x", rotation=90)
    ax.tick_params(length=2, color=colours.faint, labelcolor=colours.text, pad=2)
    for spine in ax.spines.values():
        spine.set_color(colours.faint)
    ax.set_ylabel(f"{grid.row_model}, depth →", color=colours.text, fontsize=9)
    ax.set_xlabel(f"{grid.column_model}, depth →", color=colours.text, fontsize=9)


def _colour_bar(
    ax: Axes,
    image: Any,
    label: str,
    limits: tuple[float, float],
    known: Matrix,
    missing: bool,
    colours: _Colours,
) -> None:
    # Rounding alone takes the diagonal to 1.0000000002, which is no news to anyone.
    below = bool(known.size) and float(known.min()) < limits[0] - 1e-6
    above = bool(known.size) and float(known.max()) > limits[1] + 1e-6
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[(below, above)]
    bar = ax.figure.colorbar(image, cax=ax, extend=extend)
    bar.set_label(label, color=colours.text, fontsize=9)
    ax.tick_params(labelsize=8, color=colours.faint, labelcolor=colours.text)
    bar.outline.set_edgecolor(colours.faint)
    notes = [f"lowest {known.min():.3f}"] if below else []
    notes += ["grey:\nno value"] if missing else []
    # Clear of the arrow that the bar has on that side.
    ax.set_xlabel("\n".join(notes), color=colours.text, fontsize=8, labelpad=22 if below else 4)
    if above:
        ax.set_title(f"highest {known.max():.3f}", color=colours.text, fontsize=8, pad=22)


def plot_by_distance(
    grids: Sequence[Grid],
    *,
    theme: Theme = "light",
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Mean similarity against the distance between layers, a line for each square grid.

    A network whose layers are specialised falls quickly; block structure shows as a slow fall.

    Args:
        grids: Grids with as many rows as columns; others are left out.
        theme: "light" or "dark" background.
        path: Also write the figure to this file.

    Raises:
        ValueError: No square grid, or an unknown theme.
        OSError: The place cannot be written to.
    """
    check_choice("theme", theme, _THEMES)
    square = [_plain(grid) for grid in grids if grid.is_square]
    if not square:
        raise ValueError("grids must have one with as many rows as columns, got none")
    colours = _THEMES[theme]
    figure = _Picture(figsize=(6.4, 3.6), layout="constrained", facecolor=colours.background)
    ax = figure.subplots()
    ax.set_facecolor(colours.background)
    for number, grid in enumerate(square):
        start = 1 if grid.within else 0  # a layer equals itself, which is no finding
        mean = grid.mean_by_distance()[start:]
        ax.plot(
            np.arange(start, start + len(mean)),
            mean,
            label=grid.title,
            color=_LINES[number % len(_LINES)],
            linestyle="-" if grid.within else "--",
            linewidth=2,
        )
    ax.set_ylim(min(0.0, ax.get_ylim()[0]), 1.02 * _scale(square)[1])
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel("layers apart", color=colours.text, fontsize=9)
    ax.set_ylabel(f"mean {measure_name(square)}", color=colours.text, fontsize=9)
    ax.tick_params(labelsize=8, color=colours.faint, labelcolor=colours.text)
    ax.grid(color=colours.faint, linewidth=0.5, alpha=0.6)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours.faint)
    ax.legend(frameon=False, fontsize=9, labelcolor=colours.text)
    return _finish(figure, path)


def to_png(figure: Figure, *, dpi: int = 150) -> bytes:
    """The figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor=figure.get_facecolor())
    return buffer.getvalue()


def _finish(figure: Figure, path: str | os.PathLike[str] | None) -> Figure:
    if path is not None:
        with replacing(path) as temporary:
            figure.savefig(temporary, dpi=150, facecolor=figure.get_facecolor())
    return figure
