"""Pictures of estimates and of grids."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from repsim_fast import Grid
from repsim_fast.analysis.estimates import Estimate
from repsim_fast.comparison.grid import plot_grids

_FEW = 4  # curves, whose legend fits beside them


def heatmaps(grids: Sequence[Grid], title: str, columns: int = 3) -> Figure:
    """Grids side by side on one scale; the title has the largest standard error of a cell."""
    error = max(float(np.nanmax(grid.standard_error)) for grid in grids)
    title = f"{title} (standard errors up to {error:.2g})"
    return plot_grids(grids, columns=columns, title=title)


def lines(
    curves: Mapping[str, Sequence[Estimate]],
    *,
    x: Sequence[Any] | Mapping[str, Sequence[Any]] | None = None,
    xlabel: str,
    ylabel: str,
    title: str,
    borders: Iterable[tuple[float, str]] = (),
) -> Figure:
    """Curves with one standard error either way; ``borders`` are marked positions."""
    figure = Figure(figsize=(7.5, 4), layout="constrained")
    ax = figure.subplots()
    for label, curve in curves.items():
        given = x[label] if isinstance(x, Mapping) else x
        at = np.arange(len(curve)) if given is None else np.asarray(given)
        value = np.array([e.value for e in curve])
        error = np.nan_to_num([e.standard_error for e in curve])
        (line,) = ax.plot(at, value, label=label, linewidth=1.6, marker=".", markersize=4)
        low, high = value - error, value + error
        ax.fill_between(at, low, high, color=line.get_color(), alpha=0.2, lw=0)
    for position, text in borders:
        ax.axvline(position, color="0.7", linewidth=0.8)
        ax.text(position, ax.get_ylim()[1], f" {text}", fontsize=7, va="top", color="0.4")
    ax.set(xlabel=xlabel, ylabel=ylabel, title=title)
    ax.grid(alpha=0.25)
    if x is None:  # layers, epochs
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    if len(curves) > _FEW:  # would lie on the curves
        figure.legend(fontsize=7, loc="outside right upper")
    else:
        ax.legend(fontsize=7)
    return figure


def matrix(
    names: Sequence[str], values: Sequence[Sequence[Estimate]], *, title: str, label: str
) -> Figure:
    """A small labelled matrix of similarities with its numbers."""
    size = (1.8 + 0.68 * len(names), 1.4 + 0.6 * len(names))
    figure = Figure(figsize=size, layout="constrained")
    ax = figure.subplots()
    shown = ax.imshow([[e.value for e in row] for row in values], vmin=0, vmax=1, cmap="magma")
    for i, row in enumerate(values):
        for j, e in enumerate(row):
            text = f"{e.value:.2f}" + (f"\n±{e.standard_error:.3f}" if i != j else "")
            colour = "black" if e.value > 0.6 else "white"
            ax.text(j, i, text, ha="center", va="center", color=colour, fontsize=6)
    ax.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    ax.set_yticks(range(len(names)), names, fontsize=8)
    ax.set_title(title, fontsize=10)
    figure.colorbar(shown, label=f"{label} ± standard error")
    return figure
