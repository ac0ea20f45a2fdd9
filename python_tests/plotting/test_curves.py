"""Curves: lines, bands of standard errors, axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from repsim_fast.plotting import Curve, plot_curves

CURVES = [
    Curve(np.array([0.9, 0.8]), "first", start=1, standard_error=np.array([0.1, 0.2])),
    Curve(np.array([0.7, -0.2, 0.5]), "se$cond", dashed=True),
]


def test_a_line_for_each_curve_and_a_band_for_its_errors() -> None:
    (ax,) = plot_curves(CURVES, x_label="apart", y_label="mean", top=2.0).axes
    first, second = ax.lines
    assert list(first.get_xdata()) == [1, 2]
    assert list(second.get_ydata()) == [0.7, -0.2, 0.5]
    assert (first.get_linestyle(), second.get_linestyle()) == ("-", "--")
    (band,) = [c for c in ax.collections if isinstance(c, PolyCollection)]
    assert {0.8, 1.0} <= set(band.get_paths()[0].vertices[:, 1])
    assert ax.get_ylim()[0] <= -0.2
    assert ax.get_ylim()[1] == pytest.approx(2.04)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("apart", "mean")


def test_names_are_no_formulas(tmp_path: Path) -> None:
    plot_curves(CURVES, x_label="x", y_label="y", path=tmp_path / "curves.svg")
    assert "<!-- se$cond -->" in (tmp_path / "curves.svg").read_text(encoding="utf-8")


def test_no_curve() -> None:
    with pytest.raises(ValueError, match="curves must be at least one, got none"):
        plot_curves([], x_label="x", y_label="y")
