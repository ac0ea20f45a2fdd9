"""Numbers of whole grids, by the grids' own slower ways."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from python_tests.comparison.made_result import make
from repsim_fast import Grid, SimilarityResult
from repsim_fast.comparison.overview import (
    along_depth,
    by_distance,
    means_along_depth,
    overview_in_words,
    plot_overview,
)


def a_result(layers: tuple[int, ...] = (5, 5, 9)) -> SimilarityResult:
    made = make(layers)
    noise = np.random.default_rng(1).normal(scale=0.01, size=(4, *made.value.shape))
    return replace(made, left_out=made.value + noise, group_samples=(25,) * 4)


def test_layers_at_the_same_position() -> None:
    grid = a_result().between(0, 1)
    value, error = along_depth(grid)
    assert value == pytest.approx(grid.mean_same_layer(), rel=1e-12)
    assert error == pytest.approx(grid.standard_error_of(Grid.mean_same_layer), rel=1e-9)


def test_layers_at_the_same_relative_depth() -> None:
    grid = a_result().between(0, 2)
    pairs = [(0, 0), (0, 1), (1, 2), (2, 3), (2, 4), (2, 5), (3, 6), (4, 7), (4, 8)]
    assert along_depth(grid)[0] == pytest.approx(np.mean([grid.value[pair] for pair in pairs]))


def test_distance() -> None:
    grid = a_result().between(0, 1)
    grid.value[1] = np.nan
    value, error = by_distance(grid)
    np.testing.assert_allclose(value, grid.mean_by_distance(), rtol=1e-12)
    expected = a_result().between(0, 1)
    np.testing.assert_allclose(
        by_distance(expected)[1], expected.standard_error_of(Grid.mean_by_distance), rtol=1e-9
    )
    assert error.shape == (5,)
    with pytest.raises(ValueError, match="as many rows as columns"):
        by_distance(a_result().between(0, 2))


def test_models_by_models(tmp_path: Path) -> None:
    result = a_result()
    matrix = means_along_depth(result)
    for i in range(3):
        for j in range(i, 3):
            expected = along_depth(result.between(i, j))[0]
            np.testing.assert_allclose([matrix[i, j], matrix[j, i]], expected, rtol=1e-12)
    figure = plot_overview(result, path=tmp_path / "o.png")
    np.testing.assert_array_equal(figure.axes[0].images[0].get_array(), matrix)
    assert (tmp_path / "o.png").is_file()


def test_many_models_in_words() -> None:
    result = a_result((2,) * 5)
    means = means_along_depth(result)
    apart = means[np.triu_indices(5, 1)]
    (line,) = overview_in_words(result)
    assert line.startswith("10 pairs of models")
    assert f": {apart.min():.3f} (" in line
    i, j = np.argwhere(np.triu(means, 1) == apart.max())[0]
    assert line.endswith(f") to {apart.max():.3f} ({result.models[i]} / {result.models[j]})")
    assert line in repr(result)
    chance = np.full_like(result.value, 0.25)
    assert overview_in_words(replace(result, chance=chance))[0].endswith(", by chance 0.250)")
    assert len(overview_in_words(a_result())) == 6


def test_many_models_without_values_in_words() -> None:
    result = a_result((2,) * 4)
    unknown = replace(result, value=np.full_like(result.value, np.nan))
    assert overview_in_words(unknown)[0].endswith("no values")
