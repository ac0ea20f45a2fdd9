"""Heat maps of matrices with names along both sides, many of them on one colour scale."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, TypeAlias

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colorbar import make_axes
from matplotlib.figure import Figure

from repsim_fast.plotting.sheet import Sheet, Sides, labels_that_fit
from repsim_fast.plotting.stages import names_without_containers, stages_by_name
from repsim_fast.plotting.style import (
    Colours,
    NotebookFigure,
    Theme,
    colours_of,
    finish,
    plain,
    plain_names,
    style_ticks,
)

__all__ = ["HeatMap", "plot_heat_maps"]

Matrix: TypeAlias = npt.NDArray[np.float64]

_TITLE = 0.4  # inches above the panels
_NO_TITLE = 0.05
_MOST_NAMES = 24  # along a side; stages stand for more
_LARGEST_STAGE = 8.0  # points


@dataclass(frozen=True, eq=False)
class HeatMap:
    """A matrix to be drawn.

    Args:
        value: (rows, columns); NaN cells are grey.
        rows, columns: Names along the sides, from below and from the left.
        row_label, column_label: What the sides are.
        title: Heading.
        note: A line below the heading.
        standard_error: (rows, columns); NaN where it is not known.
    """

    value: Matrix
    rows: Sequence[str]
    columns: Sequence[str]
    row_label: str = ""
    column_label: str = ""
    title: str = ""
    note: str = ""
    standard_error: Matrix | None = None


def plot_heat_maps(
    maps: Sequence[HeatMap],
    *,
    label: str,
    limits: tuple[float, float] = (0.0, 1.0),
    standard_error: bool = False,
    columns: int = 3,
    title: str | None = None,
    theme: Theme = "light",
    colormap: str = "magma",
    vmin: float | None = None,
    vmax: float | None = None,
    figsize: tuple[float, float] | None = None,
    ax: Axes | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Heat maps side by side, all on one colour scale.

    Rows run upwards and columns to the right. Values outside of the limits are not changed: they
    take the colour of the end of the scale, and the scale says how far they go. Cells without a
    value are grey. Along sides of more than 24 layers stand their stages where names tell them,
    the blocks of a transformer, so that a figure is read at the width of a page. Names are without
    the modules that hold nearly all layers: "layer.0" of "bert.encoder.layer.0".

    Args:
        maps: What to draw.
        label: What the values are.
        limits: Ends of the scale.
        standard_error: Add a panel with the standard error to each map.
        columns: Heat maps in a row at most.
        title: Heading of the figure.
        theme: "light" or "dark" background.
        colormap: Name of a matplotlib colour map.
        vmin, vmax: Ends of the scale in place of those of ``limits``.
        figsize: Width and height of the figure in inches in place of those that labels need.
        ax: Draw one map into these axes, with a colour bar beside them, and return their figure.
        path: Also write the figure to this file, in the format of its suffix.

    Returns:
        A ``matplotlib.figure.Figure``, to be saved or drawn on; pyplot knows nothing of it.

    Raises:
        ValueError: No map, an unknown theme, a suffix matplotlib cannot write, or ``ax`` for
            several panels or with ``figsize``.
        OSError: The place cannot be written to.
    """
    colours = colours_of(theme)
    if not maps:
        raise ValueError("maps must be at least one, got none")
    limits = (limits[0] if vmin is None else vmin, limits[1] if vmax is None else vmax)
    titles = plain_names([one.title for one in maps])
    maps = [_plain(one, title) for one, title in zip(maps, titles, strict=True)]
    label = plain(label)
    if ax is not None:
        if len(maps) > 1 or standard_error or figsize is not None:
            raise ValueError("ax: expected one map, without standard_error and figsize")
        _draw_into(ax, maps[0], colormap, limits, label, title, colours)
        return finish(_figure_of(ax), path)
    sides, staged = _sides(maps)
    repeats = 2 if standard_error else 1
    sheet = Sheet(sides, min(columns, len(maps)), repeats=repeats, staged=staged)
    height = sheet.height + (_TITLE if title else _NO_TITLE)
    figure = NotebookFigure(figsize=(sheet.width, height), facecolor=colours.background)
    if title:
        _write_title(figure, title, colours)
    _draw(figure, sheet, 0, maps, [one.value for one in maps], colormap, limits, label, colours)
    if standard_error:
        errors = [_error(one) for one in maps]
        largest = max((float(np.nanmax(e)) for e in errors if np.isfinite(e).any()), default=1.0)
        scale, of = (0.0, largest or 1.0), f"standard error of {label}"
        _draw(figure, sheet, 1, maps, errors, "viridis", scale, of, colours)
    if figsize is not None:
        figure.set_size_inches(figsize)
    return finish(figure, path)


def _sides(maps: Sequence[HeatMap]) -> tuple[list[Sides], bool]:
    """What stands along the sides of each map, and whether it is stages in place of names."""
    names = {tuple(side) for one in maps for side in (one.rows, one.columns)}
    stages = {side: stages_by_name(side) for side in names}
    long = [side for side in names if len(side) > _MOST_NAMES]
    staged = bool(long) and all(stages[side] for side in long)

    def written(side: Sequence[str]) -> Sequence[str]:
        found = (stages[tuple(side)] if staged else None) or names_without_containers(side)
        return plain_names(found)

    return [Sides(written(one.rows), written(one.columns)) for one in maps], staged


def _figure_of(ax: Axes) -> Figure:
    figure = ax.get_figure(root=True)
    if figure is None:
        raise ValueError("ax: expected axes of a figure, got some of none")
    return figure


def _draw_into(
    ax: Axes,
    one: HeatMap,
    colormap: str,
    limits: tuple[float, float],
    label: str,
    title: str | None,
    colours: Colours,
) -> None:
    image = _image(ax, one.value, colormap, limits, colours)
    bar, _ = make_axes(ax)
    place = ax.get_window_extent()
    figure = _figure_of(ax)
    cell = min(place.height / len(one.rows), place.width / len(one.columns)) / figure.dpi
    (sides,), staged = _sides([one])
    every, size = labels_that_fit(cell)
    _label_sides(ax, one, sides, (every, min(size, _LARGEST_STAGE)), staged, colours)
    _head(ax, title or one.title, one.note, colours)
    known, missing = one.value[np.isfinite(one.value)], bool(np.isnan(one.value).any())
    _colour_bar(bar, image, label, limits, known, missing, colours)


def _image(
    ax: Axes, value: Matrix, colormap: str, limits: tuple[float, float], colours: Colours
) -> Any:
    return ax.imshow(
        np.ma.masked_invalid(value),
        cmap=mpl.colormaps[colormap].with_extremes(bad=colours.unknown),
        vmin=limits[0],
        vmax=limits[1],
        origin="lower",
        interpolation="nearest",
        aspect="auto",
    )


def _error(one: HeatMap) -> Matrix:
    return np.full_like(one.value, np.nan) if one.standard_error is None else one.standard_error


def _plain(one: HeatMap, title: str) -> HeatMap:
    """The map with texts that are no formulas; names of layers become so where they are drawn."""
    return replace(
        one,
        row_label=plain(one.row_label),
        column_label=plain(one.column_label),
        title=title,
    )


def _write_title(figure: Figure, title: str, colours: Colours) -> None:
    height = 1 - 0.1 / figure.get_figheight()
    style: dict[str, Any] = {"ha": "center", "va": "top", "color": colours.text, "fontsize": 13}
    figure.text(0.5, height, title, **style)


def _add_axes(figure: Figure, place: tuple[float, float, float, float]) -> Axes:
    width, height = figure.get_size_inches()
    left, bottom, wide, high = place
    return figure.add_axes((left / width, bottom / height, wide / width, high / height))


def _draw(
    figure: Figure,
    sheet: Sheet,
    repeat: int,
    maps: Sequence[HeatMap],
    values: Sequence[Matrix],
    colormap: str,
    limits: tuple[float, float],
    label: str,
    colours: Colours,
) -> None:
    """One panel for each map, and a colour bar for all of them."""
    image: Any = None
    for number, (one, value) in enumerate(zip(maps, values, strict=True)):
        ax = _add_axes(figure, sheet.panel(number, repeat))
        image = _image(ax, value, colormap, limits, colours)
        labels = sheet.every, sheet.text_size
        _label_sides(ax, one, sheet.panels[number], labels, sheet.staged, colours)
        _head(ax, one.title, one.note if repeat == 0 else "", colours)
    known = np.concatenate([value[np.isfinite(value)] for value in values])
    missing = any(np.isnan(value).any() for value in values)
    _colour_bar(_add_axes(figure, sheet.bar(repeat)), image, label, limits, known, missing, colours)


def _head(ax: Axes, title: str, note: str, colours: Colours) -> None:
    style: dict[str, Any] = {"transform": ax.transAxes, "ha": "center", "color": colours.text}
    if note:
        ax.text(0.5, _height_above(ax, 0.07), note, fontsize=8, **style)
    above = _height_above(ax, 0.22 if note else 0.07)
    ax.text(0.5, above, title, fontsize=10, fontweight="bold", **style)


def _height_above(ax: Axes, inches: float) -> float:
    """Height above an axes, in units of its height."""
    return 1 + inches * ax.figure.dpi / ax.get_window_extent().height


def _label_sides(
    ax: Axes,
    one: HeatMap,
    sides: Sides,
    labels: tuple[int, float],
    staged: bool,
    colours: Colours,
) -> None:
    every, size = labels
    for axis, names in ((ax.xaxis, sides.columns), (ax.yaxis, sides.rows)):
        if staged:
            _write_stages(ax, axis, names, size, colours)
        else:
            chosen = range(0, len(names), every)
            axis.set_ticks(chosen, [names[i] for i in chosen], fontsize=size)
    ax.tick_params(axis="x", rotation=90)
    style_ticks(ax, colours, length=2, pad=2)
    for spine in ax.spines.values():
        spine.set_color(colours.faint)
    ax.set_ylabel(one.row_label, color=colours.text, fontsize=9)
    ax.set_xlabel(one.column_label, color=colours.text, fontsize=9)


def _write_stages(
    ax: Axes, axis: Axis, names: Sequence[str], size: float, colours: Colours
) -> None:
    """A label in the middle of each stage that has room for one, lines between them."""
    place = ax.get_window_extent()
    pixels = (place.width if axis is ax.xaxis else place.height) / len(names)
    line = ax.axvline if axis is ax.xaxis else ax.axhline
    needed = 1.1 * size * _figure_of(ax).dpi / 72 / pixels
    runs: list[tuple[int, float, str]] = []
    start = 0
    for name, run in groupby(names):
        length = len(list(run))
        runs.append((length, start + (length - 1) / 2, name))
        if start:
            line(start - 0.5, color=colours.background, linewidth=0.6)
        start += length
    ticks: dict[float, str] = {}
    # The large ones first: all blocks or every k-th, a stem where it has room beside them.
    for _, middle, name in sorted(runs, key=lambda run: -run[0]):
        if all(abs(middle - other) > needed for other in ticks):
            ticks[middle] = name
    axis.set_ticks(sorted(ticks), [ticks[at] for at in sorted(ticks)], fontsize=size)


def _colour_bar(
    ax: Axes,
    image: Any,
    label: str,
    limits: tuple[float, float],
    known: Matrix,
    missing: bool,
    colours: Colours,
) -> None:
    # Rounding alone takes the diagonal to 1.0000000002, which is no news to anyone.
    below = bool(known.size) and float(known.min()) < limits[0] - 1e-6
    above = bool(known.size) and float(known.max()) > limits[1] + 1e-6
    extend = {(0, 0): "neither", (1, 0): "min", (0, 1): "max", (1, 1): "both"}[(below, above)]
    bar = ax.figure.colorbar(image, cax=ax, extend=extend)
    bar.set_label(label, color=colours.text, fontsize=9)
    style_ticks(ax, colours, labelsize=8)
    bar.outline.set_edgecolor(colours.faint)
    notes = [f"lowest {known.min():.3f}"] if below else []
    notes += ["grey:\nno value"] if missing else []
    # Clear of the arrow that the bar has on that side.
    ax.set_xlabel("\n".join(notes), color=colours.text, fontsize=8, labelpad=22 if below else 4)
    if above:
        ax.set_title(f"highest {known.max():.3f}", color=colours.text, fontsize=8, pad=22)
