"""Curves of means, with a band of one standard error where that is known."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repsim_fast.plotting.heat_maps import Matrix
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

__all__ = ["Curve", "plot_curves"]

# Okabe and Ito's palette, distinct also to the colour-blind; readable on both backgrounds.
_LINES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")


@dataclass(frozen=True, eq=False)
class Curve:
    """Values at successive integers.

    Args:
        value: (n,).
        title: Its name.
        start: Where the first value is.
        standard_error: (n,); NaN where it is not known.
        dashed: Whether the line is dashed.
    """

    value: Matrix
    title: str
    start: int = 0
    standard_error: Matrix | None = None
    dashed: bool = False


def plot_curves(
    curves: Sequence[Curve],
    *,
    x_label: str,
    y_label: str,
    top: float = 1.0,
    theme: Theme = "light",
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """A line for each curve, from 0 or below up to ``top``.

    Args:
        curves: What to draw.
        x_label, y_label: What the axes are.
        top: Largest value that there can be.
        theme: "light" or "dark" background.
        path: Also write the figure to this file.

    Raises:
        ValueError: No curve, or an unknown theme.
        OSError: The place cannot be written to.
    """
    colours = colours_of(theme)
    if not curves:
        raise ValueError("curves must be at least one, got none")
    figure = NotebookFigure(figsize=(6.4, 3.6), layout="constrained", facecolor=colours.background)
    ax = figure.subplots()
    titles = plain_names([curve.title for curve in curves])
    for number, (curve, title) in enumerate(zip(curves, titles, strict=True)):
        _draw(ax, curve, title, _LINES[number % len(_LINES)])
    ax.set_ylim(min(0.0, ax.get_ylim()[0]), 1.02 * top)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    ax.set_xlabel(x_label, color=colours.text, fontsize=9)
    ax.set_ylabel(plain(y_label), color=colours.text, fontsize=9)
    _style(ax, colours)
    return finish(figure, path)


def _draw(ax: Axes, curve: Curve, title: str, colour: str) -> None:
    x = np.arange(curve.start, curve.start + len(curve.value))
    style = "--" if curve.dashed else "-"
    ax.plot(x, curve.value, label=title, color=colour, linestyle=style, linewidth=2)
    if curve.standard_error is not None:
        low, high = curve.value - curve.standard_error, curve.value + curve.standard_error
        ax.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0)


def _style(ax: Axes, colours: Colours) -> None:
    ax.set_facecolor(colours.background)
    style_ticks(ax, colours, labelsize=8)
    ax.grid(color=colours.faint, linewidth=0.5, alpha=0.6)
    for side, spine in ax.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(colours.faint)
    ax.legend(frameon=False, fontsize=9, labelcolor=colours.text)
