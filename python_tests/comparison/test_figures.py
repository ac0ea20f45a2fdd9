"""Figures of results: which grids they show, under which names, on which scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from python_tests.comparison.made_result import make
from repsim_fast import Grid
from repsim_fast.comparison.grid import measure_title, plot_by_distance, plot_grids
from repsim_fast.similarity import measure_names


def panels(figure: Figure) -> list[Axes]:
    return [ax for ax in figure.axes if ax.images]


def test_two_models_are_shown_against_one_another() -> None:
    result = make((3, 2))
    (ax,) = panels(result.plot())
    np.testing.assert_array_equal(ax.images[0].get_array(), result.value[:3, 3:])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["layer0", "layer1", "layer2"]
    assert [t.get_text() for t in ax.get_xticklabels()] == ["layer0", "layer1"]
    assert ax.get_ylabel() == "a, depth →"
    assert ax.get_xlabel() == "b, depth →"


def test_choice_of_models() -> None:
    result = make((3, 2, 3))
    assert len(panels(result.plot("a", "b"))) == 1
    assert len(panels(result.plot("b"))) == 1
    assert len(panels(result.plot())) == 6
    assert len(panels(make((3,)).plot())) == 1
    assert len(panels(result.between("a", "b").plot(standard_error=True))) == 2
    with pytest.raises(ValueError, match="a must be given with b"):
        result.plot(b="a")
    with pytest.raises(ValueError, match="grids must be at least one, got none"):
        plot_grids([])


def test_distances_are_drawn_up_to_the_largest() -> None:
    result = replace(make((3, 2)), measure="bures_distance")
    result.value[0, 3] = 7.0
    (ax,) = panels(result.plot())
    assert ax.images[0].get_clim() == (0.0, 7.0)
    (similarity,) = panels(replace(result, measure="cka").plot())
    assert similarity.images[0].get_clim() == (0.0, 1.0)


def test_figures_are_headed_by_the_measures_true_name() -> None:
    def labels(measure: str) -> list[str]:
        return [ax.get_ylabel() for ax in replace(make((2,)), measure=measure).plot().axes]

    assert "linear CKA" in labels("cka")
    assert "RBF CKA" in labels("cka_rbf")
    assert "somebody's own" in labels("somebody's own")
    titles = [
        measure_title([replace(make((1,)).between(0, 0), measure=m)]) for m in measure_names()
    ]
    assert len(set(titles)) == len(titles)
    assert not any("_" in title for title in titles)


class TestByDistance:
    def test_one_line_for_each_square_grid(self) -> None:
        (ax,) = plot_by_distance(make((3, 2, 3)).grids()).axes
        lines = {line.get_label(): line.get_xdata() for line in ax.lines}
        assert list(lines) == ["within a", "within b", "within c", "a / c"]
        assert list(lines["within a"]) == [1, 2]  # a layer against itself is no finding
        assert list(lines["a / c"]) == [0, 1, 2]

    def test_bands_are_the_errors_of_the_means(self) -> None:
        result = make((3,))
        left_out = result.value + np.array([0.1, -0.1])[:, None, None]
        grid = replace(result, left_out=left_out, group_samples=(50, 50)).between(0, 0)
        (ax,) = plot_by_distance([grid]).axes
        (band,) = ax.collections
        mean, error = (f[1:] for f in (grid.mean_by_distance(), errors(grid)))
        np.testing.assert_allclose(error, 0.1)
        ends = band.get_paths()[0].vertices[:, 1]
        for expected in (*(mean - error), *(mean + error)):
            assert np.abs(ends - expected).min() < 1e-12

    def test_no_square_grid(self) -> None:
        with pytest.raises(ValueError, match="got none"):
            plot_by_distance([make((3, 2)).between(0, 1)])


def errors(grid: Grid) -> np.ndarray:
    return grid.standard_error_of(Grid.mean_by_distance)
