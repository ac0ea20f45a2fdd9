"""One number for each pair of models: what it is, how sure, and what is near what."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from python_tests.comparison.made_result import make
from repsim_fast import SimilarityResult, compare
from repsim_fast.similarity import cka


@pytest.fixture(scope="module")
def result() -> SimilarityResult:
    """Two networks twice each: with a little noise on the weights, the pairs belong together."""
    torch.manual_seed(0)
    one, two = nn.Linear(30, 8), nn.Linear(30, 8)
    x = torch.randn(200, 30)
    x[:, :10] += 4 * torch.randn(200, 1)

    def like(layer: nn.Linear) -> nn.Module:
        new = nn.Sequential(nn.Linear(30, 8), nn.Tanh())
        with torch.no_grad():
            new[0].weight.copy_(layer.weight + 0.01 * torch.randn_like(layer.weight))
        return new

    models = {"a1": like(one), "b1": like(two), "a2": like(one), "b2": like(two)}
    return compare(models, x, batch_size=50)


def test_summaries_written_out(result: SimilarityResult) -> None:
    grid = result.between("a1", "b2").value
    own = [result.between(m, m).value.mean() for m in ("a1", "b2")]
    want = {
        "same_layer": grid.diagonal().mean(),
        "best_match": (grid.max(axis=1).mean() + grid.max(axis=0).mean()) / 2,
        "mean": grid.mean(),
        "network": np.arccos(grid.mean() / np.sqrt(own[0] * own[1])),
    }
    for summary, value in want.items():
        matrix = result.models_matrix(summary)  # type: ignore[arg-type]
        np.testing.assert_allclose(matrix.value[0, 3], value, rtol=1e-12)
        np.testing.assert_array_equal(matrix.value, matrix.value.T)
        assert matrix.distance == (summary == "network")


def test_network_is_the_angle_between_sums_of_normalised_grams() -> None:
    torch.manual_seed(1)
    a = [torch.randn(40, 6).double() for _ in range(2)]
    b = [torch.randn(40, 9).double() for _ in range(3)]

    def gram(x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean(0)
        k = centred @ centred.T
        return k / k.norm()

    sums = [sum(map(gram, layers)) for layers in (a, b)]
    cosine = (sums[0] * sums[1]).sum() / (sums[0].norm() * sums[1].norm())  # type: ignore[operator,union-attr]
    layers = [*a, *b]
    value = np.array([[float(cka(x, y, estimator="biased")) for y in layers] for x in layers])
    made = replace(make((2, 3)), value=value, standard_error=np.full((5, 5), np.nan), settings={})
    np.testing.assert_allclose(
        made.models_matrix("network").value[0, 1], np.arccos(float(cosine)), rtol=1e-6
    )


def test_standard_errors_are_those_of_the_jackknife(result: SimilarityResult) -> None:
    matrix = result.models_matrix("same_layer")
    want = result.between("a1", "b2").figures()[0]
    assert want.name == "mean same layer"
    np.testing.assert_allclose(matrix.standard_error[0, 3], want.standard_error, rtol=1e-9)
    assert np.isnan(make().models_matrix().standard_error).all()


def test_what_belongs_together_is_found(result: SimilarityResult, tmp_path: Path) -> None:
    for summary in ("same_layer", "best_match", "network"):
        matrix = result.models_matrix(summary)  # type: ignore[arg-type]
        assert sorted(matrix.clusters(2)) == [("a1", "a2"), ("b1", "b2")]
        distances = matrix.distances()
        assert (distances.diagonal() == 0).all()
        points, shown = matrix.plane()
        assert 0.5 < shown <= 1
        apart = np.linalg.norm(points[:, None] - points[None], axis=-1)
        assert apart[0, 2] < apart[0, 1]
        figure = matrix.plot(path=tmp_path / f"{summary}.png")
        assert isinstance(figure, Figure)
        assert (tmp_path / f"{summary}.png").stat().st_size > 5000
    assert "a1" in repr(matrix)
    assert len(matrix.clusters(4)) == 4


def test_the_plane_keeps_distances_that_lie_in_one() -> None:
    places = np.array([[0.0, 0], [3, 0], [0, 4], [3, 4]])
    apart = np.linalg.norm(places[:, None] - places[None], axis=-1)
    matrix = replace(make((1, 1, 1, 1)).models_matrix("mean"), value=apart, distance=True)
    points, shown = matrix.plane()
    np.testing.assert_allclose(np.linalg.norm(points[:, None] - points[None], axis=-1), apart)
    assert shown == pytest.approx(1)


def test_models_with_other_numbers_of_layers() -> None:
    result = make((3, 2))  # layer0 and layer1 are in both
    matrix = result.models_matrix("same_layer")
    grid = result.between("a", "b").value
    assert matrix.value[0, 1] == pytest.approx((grid[0, 0] + grid[1, 1]) / 2)
    other = replace(result, layers=(("x", "y", "z"), ("u", "v")))
    with pytest.raises(ValueError, match="'a' and 'b' have 3 and 2 layers, none of one name"):
        other.models_matrix("same_layer")


def test_layers_without_a_value_are_left_out() -> None:
    result = make((2, 2, 2))
    value = result.value.copy()
    value[1], value[:, 1] = np.nan, np.nan
    matrix = replace(result, value=value).models_matrix()
    assert np.isfinite(matrix.value).all()
    value[0], value[:, 0] = np.nan, np.nan
    matrix = replace(result, value=value).models_matrix()
    assert np.isnan(matrix.value[0]).all()
    with pytest.raises(ValueError, match="expected a number for every pair, got NaN for 'a'"):
        matrix.plot()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.models_matrix("best"), "summary: expected one of 'same_layer'"),
        (lambda r: r.models_matrix().clusters(9), "count: expected 1 to 4 clusters, got 9"),
        (lambda r: r.models_matrix().linkage("nearest"), "Invalid method"),
        (
            lambda r: replace(r, measure="procrustes_distance").models_matrix("network"),
            "summary: expected another than 'network' for procrustes_distance",
        ),
        (
            lambda r: replace(r, measure="cca").models_matrix("network"),
            "summary: expected another than 'network' for cca: .* values of cka, cka_rbf",
        ),
    ],
    ids=range(5),
)
def test_bad_arguments(result: SimilarityResult, call: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(result)


def test_one_model() -> None:
    with pytest.raises(ValueError, match="expected at least two to cluster, got one"):
        make((3,)).models_matrix().plot()
