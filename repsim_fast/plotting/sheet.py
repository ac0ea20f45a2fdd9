"""Where the panels of a sheet of heat maps go."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

_POINTS = 72.0  # an inch
_SMALLEST_TEXT = 6.0  # points; smaller labels cannot be read on paper
_LARGEST_TEXT = 9.0
_CELL = 0.125  # wanted side of a cell: one line of the smallest text, in inches like all below
_LARGEST_PANEL = {1: 8.0, 2: 6.5}  # by panels in a row; more of them: 5.5
# With stages along the sides: small enough that labels are read at the width of a README or a
# page.
_STAGED_PANEL = {1: 4.5, 2: 2.9}  # more of them: 2.3
_SMALLEST_PANEL = 2.6
_ABOVE, _BESIDE, _GAP, _BAR, _BAR_LABELS = 0.5, 0.3, 0.25, 0.16, 0.75


class Sides(NamedTuple):
    """Names along the two sides of a panel."""

    rows: Sequence[str]
    columns: Sequence[str]


def labels_that_fit(cell: float) -> tuple[int, float]:
    """Which names are written along cells of a size in inches, every first, second, ... one, and
    in what size."""
    every = math.ceil((_SMALLEST_TEXT + 1) / (cell * _POINTS))
    return every, float(np.clip(0.8 * cell * _POINTS * every, _SMALLEST_TEXT, _LARGEST_TEXT))


class Sheet:
    """Where panels go, in inches from the lower left corner: cells of one size everywhere.

    Laid out by hand because the sizes are known: cells are square and labels are as long as
    their texts. matplotlib's own layouts leave fixed-aspect panels overlapping or cut off.

    Args:
        panels: Names along the sides of each panel.
        n_columns: Panels in a row.
        repeats: How often all panels are there, one block below the other.
        staged: Whether the names are those of stages, each for several rows or columns.

    Attributes:
        width, height: Size of the sheet in inches.
        every: Which names are written: every first, second, ... one.
        text_size: Size of the names in points.
        staged: As given.
    """

    def __init__(
        self, panels: Sequence[Sides], n_columns: int, *, repeats: int, staged: bool = False
    ) -> None:
        self.panels = panels
        self.n_columns = n_columns
        self.repeats = repeats
        most = max(len(names) for sides in panels for names in sides)
        largest = _LARGEST_PANEL.get(n_columns, 5.5)
        self.cell = float(np.clip(_CELL, _SMALLEST_PANEL / most, largest / most))
        self.staged = staged
        if staged:
            self.cell = _STAGED_PANEL.get(n_columns, 2.3) / most
        self.every, self.text_size = labels_that_fit(self.cell)
        if staged:
            self.every, self.text_size = 1, _LARGEST_TEXT - 1
        rows = [panels[i : i + n_columns] for i in range(0, len(panels), n_columns)]
        self._left = [
            _BESIDE + max(self._length(p.rows) for p in panels[column::n_columns])
            for column in range(n_columns)
        ]
        self._widths = [
            max(_SMALLEST_PANEL, self.cell * max(len(p.columns) for p in panels[column::n_columns]))
            for column in range(n_columns)
        ]
        self._below = [_BESIDE + max(self._length(p.columns) for p in row) for row in rows]
        self._heights = [self.cell * max(len(p.rows) for p in row) for row in rows]
        self.width = sum(self._left) + sum(self._widths) + n_columns * _GAP + _BAR + _BAR_LABELS
        self._block = sum(self._below) + sum(self._heights) + len(rows) * _ABOVE
        self.height = repeats * self._block + 0.1

    def _length(self, labels: Sequence[str]) -> float:
        # DejaVu Sans, matplotlib's own typeface, is about 0.6 of its size wide on average.
        return 0.6 * self.text_size / _POINTS * max(map(len, labels)) + 0.1

    def panel(self, number: int, repeat: int) -> tuple[float, float, float, float]:
        """Left, bottom, width and height of a panel."""
        sides = self.panels[number]
        row, column = divmod(number, self.n_columns)
        width, height = self.cell * len(sides.columns), self.cell * len(sides.rows)
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
