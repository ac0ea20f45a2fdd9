"""How models lie to one another: matrix, dendrogram and a plane in which distances show."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

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

__all__ = ["Tree", "plot_models"]

Array = npt.NDArray[np.float64]

# Inches: of a model's row, of what stands beside the rows, and the least of a panel.
_ROW, _BESIDE, _LEAST, _LETTER = 0.28, 1.1, 2.6, 0.075
# Models from which on cells have no number.
_MOST_NUMBERS = 12
# Points: size of names in the plane, and how far they are from their models.
_NAME, _AWAY = 8.0, 4.0


class Tree(NamedTuple):
    """A dendrogram: of each joint four points, across (leaf k at 10 k + 5) and up, and the leaves
    from left to right."""

    across: Sequence[Sequence[float]]
    up: Sequence[Sequence[float]]
    leaves: Sequence[int]


def plot_models(
    value: Array,  # (M, M)
    names: Sequence[str],
    tree: Tree,
    points: Array,  # (M, 2)
    *,
    label: str,
    distance: str,
    shown: float,
    theme: Theme = "light",
    colormap: str = "magma",
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """Matrix of all models in the order of a dendrogram above it, and models as points in a plane.

    Args:
        value: Numbers of all pairs.
        names: Of the models.
        tree: Which models are close, and then those.
        points: Places in the plane.
        label: What the values are.
        distance: What the heights of the dendrogram and the distances in the plane are.
        shown: Share of the squared distances that the plane shows, in [0, 1].
        theme: "light" or "dark" background.
        colormap: Name of a matplotlib colour map.
        path: Also write the figure to this file, in the format of its suffix.

    Returns:
        A ``matplotlib.figure.Figure``; pyplot knows nothing of it.

    Raises:
        ValueError: An unknown theme, or a suffix matplotlib cannot write.
        OSError: The place cannot be written to.
    """
    colours = colours_of(theme)
    names = plain_names(names)
    count = len(names)
    side = max(_LEAST, _ROW * count)
    margin = 0.6 + _LETTER * max(map(len, names))
    width, height = 2 * side + 2 * margin + 2 * _BESIDE, side + margin + _BESIDE + 0.7
    figure = NotebookFigure(figsize=(width, height), facecolor=colours.background)

    def axes(left: float, bottom: float, wide: float, high: float) -> Any:
        box = (left / width, bottom / height, wide / width, high / height)
        return figure.add_axes(box, facecolor=colours.background)

    matrix = axes(margin, margin, side, side)
    bar = axes(margin + side + 0.1, margin, 0.15, side)
    _draw_matrix(figure, matrix, bar, value, names, list(tree.leaves), label, colormap, colours)
    above = axes(margin, margin + side + 0.1, side, _BESIDE)
    for xs, ys in zip(tree.across, tree.up, strict=True):
        above.plot(xs, ys, color=colours.text, linewidth=1)
    above.set_xlim(0, 10 * count)
    above.set_xticks([])
    above.set_ylim(bottom=0)
    above.set_ylabel(plain(distance), color=colours.text, fontsize=8)
    _style(above, colours)
    plane = axes(margin + side + _BESIDE + margin, margin, side, side)
    _draw_plane(plane, points, names, shown, colours)
    return finish(figure, path)


def _draw_matrix(
    figure: Figure,
    ax: Any,
    beside: Any,
    value: Array,
    names: Sequence[str],
    order: list[int],
    label: str,
    colormap: str,
    colours: Colours,
) -> None:
    """Cells with their numbers, where these have room."""
    cells = value[np.ix_(order, order)]
    image = ax.imshow(cells, cmap=colormap, interpolation="nearest", aspect="auto")
    ax.set_xticks(range(len(order)), [names[i] for i in order], rotation=90)
    ax.set_yticks(range(len(order)), [names[i] for i in order])
    style_ticks(ax, colours, labelsize=8)
    if len(order) <= _MOST_NUMBERS:
        middle = np.nanmean([np.nanmin(cells), np.nanmax(cells)])
        for (row, column), cell in np.ndenumerate(cells):
            ax.text(
                column, row, f"{cell:.2f}", ha="center", va="center", fontsize=7,
                color="black" if cell > middle else "white",
            )  # fmt: skip
    bar = figure.colorbar(image, cax=beside)
    bar.set_label(plain(label), color=colours.text, fontsize=8)
    style_ticks(bar.ax, colours, labelsize=8)


def _draw_plane(
    ax: Any, points: Array, names: Sequence[str], shown: float, colours: Colours
) -> None:
    """Models as points with their names; both axes on one scale."""
    ax.scatter(points[:, 0], points[:, 1], s=25, color="#c2410c", zorder=3)
    ax.set_aspect("equal", adjustable="datalim")
    ax.margins(0.2)
    ax.apply_aspect()
    places = ax.transData.transform(points) * 72 / ax.figure.dpi
    for point, name, (right, up) in zip(points, names, _corners(places, names), strict=True):
        ax.annotate(
            name, point, xytext=(right * _AWAY, up * _AWAY), textcoords="offset points",
            ha="left" if right > 0 else "right", va="bottom" if up > 0 else "top",
            fontsize=_NAME, color=colours.text,
        )  # fmt: skip
    ax.set_title(
        f"plane with {100 * shown:.0f} % of squared distances", color=colours.text, fontsize=9
    )
    _style(ax, colours)


def _corners(places: Array, names: Sequence[str]) -> list[tuple[int, int]]:
    """On which side of its model (right, up) each name hides the least of the others.

    Args:
        places: (M, 2) of the models, in points.
        names: Of the models.
    """
    lows, highs = places - _AWAY / 2, places + _AWAY / 2  # of what is there already
    chosen = []
    for place, name in zip(places, names, strict=True):
        size = np.array([0.6 * _NAME * len(name), _NAME])
        hidden = {}
        for up, right in product((1, -1), repeat=2):
            near = place + _AWAY * np.array([right, up])
            far = near + size * [right, up]
            low, high = np.minimum(near, far), np.maximum(near, far)
            shared = np.maximum(np.minimum(high, highs) - np.maximum(low, lows), 0.0)
            hidden[right, up] = shared.prod(axis=1).sum(), low, high
        best = min(hidden, key=lambda corner: hidden[corner][0])
        _, low, high = hidden[best]
        lows, highs = np.vstack([lows, low]), np.vstack([highs, high])
        chosen.append(best)
    return chosen


def _style(ax: Any, colours: Colours) -> None:
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours.faint)
    style_ticks(ax, colours, labelsize=8)
