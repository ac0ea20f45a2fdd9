"""Chance levels of results: by definition, in tables, files, merged results and pictures."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from python_tests.comparison.made_result import make
from python_tests.comparison.parts import TWO, features, samples
from python_tests.support.in_order import compare
from repsim_fast import SimilarityResult
from repsim_fast.comparison.grid import plot_grids
from repsim_fast.similarity import chance_level, measure_names

pytestmark = pytest.mark.filterwarnings("ignore:.* independent features of n = ")


@pytest.mark.parametrize("measure", ["cca", "linear_regression", "procrustes_distance", "cka_rbf"])
def test_are_the_means_of_permutations(measure: str) -> None:
    x = torch.randn(50, 9)
    result = compare([TWO], x, batch_size=16, measure=measure, permutations=7, seed=3)
    expected = chance_level(measure, features(x), permutations=7, seed=3)
    np.testing.assert_allclose(result.chance, expected, atol=1e-6)
    assert result.chance_note == "mean over 7 random orders of the samples"


def hsic(x: Tensor, y: Tensor) -> float:
    n = len(x)
    centring = torch.eye(n, dtype=x.dtype) - 1 / n
    return float((centring @ (x @ x.T) @ centring * (y @ y.T)).sum()) / (n - 1) ** 2


def test_of_biased_cka_are_the_means_of_all_permutations() -> None:
    batches = list(torch.randn(10, 9).double().split([6, 4]))
    result = compare([TWO], batches, estimator="biased")
    expected = np.empty((2, 2))
    for i, j in itertools.product(range(2), range(2)):
        by_chance = own_i = own_j = 0.0
        for batch in batches:
            a, b, n = features(batch)[i], features(batch)[j], len(batch)
            orders = list(itertools.permutations(range(n)))
            by_chance += n * sum(hsic(a, b[list(order)]) for order in orders) / len(orders)
            own_i += n * hsic(a, a)
            own_j += n * hsic(b, b)
        expected[i, j] = by_chance / (own_i * own_j) ** 0.5
    np.testing.assert_allclose(result.chance, expected, rtol=1e-9)
    assert expected.min() > 0.3
    assert "exact" in result.chance_note


@pytest.mark.parametrize(
    ("measure", "options"),
    [("cka", {}), ("cka_rbf", {}), ("bias_corrected_distance_correlation", {})],
)
def test_of_unbiased_estimators_are_0_by_construction(
    measure: str, options: dict[str, object]
) -> None:
    x = torch.randn(50, 9)
    result = compare([TWO], x, batch_size=25, measure=measure, **options)
    assert (result.chance == 0).all()
    assert "chance level: 0 by construction" in repr(result)
    assert "by chance" not in repr(result)
    if measure != "cka":
        permuted = chance_level(measure, features(x), permutations=400)
        assert float(permuted.abs().max()) < 0.02


def test_come_by_themselves_and_are_told() -> None:
    x = torch.randn(40, 9)
    result = compare([TWO], x, measure="cca")
    assert result.chance_note == "mean over 10 random orders of the samples"
    level = result.chance[0, 1]
    assert 0.2 < level < 0.6
    grid = result.between(0, 0)
    assert f"mean off-diagonal {result.value[0, 1]:.3f} (by chance {level:.3f})" in repr(result)
    assert f"(by chance {level:.3f})" in repr(grid)
    assert result.summary()[0]["by chance"] == pytest.approx(level)
    np.testing.assert_array_equal(result.to_dataframe()["chance"], result.chance.ravel())
    (note,) = result.notes
    assert note.startswith("cca: p = 6 and q = 6 independent features of n = 40 samples")


def test_are_left_out_where_asked_and_where_they_take_too_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = torch.randn(40, 9)
    none = compare([TWO], x, measure="cca", permutations=0)
    assert none.chance is None
    assert "no chance level: none was asked for; permutations=10 gives it" in repr(none)
    assert "by chance" not in none.summary()[0]
    assert none.to_dataframe()["chance"].isna().all()
    monkeypatch.setattr("repsim_fast.similarity.streaming.samples.AT_MOST", 0.0)
    long = compare([TWO], x, measure="cca")
    assert long.chance is None
    assert long.chance_note.startswith("10 permutations would take about 0 s; permutations=10")
    asked = compare([TWO], x, measure="cca", permutations=2)
    assert asked.chance is not None


@pytest.mark.parametrize("measure", ["magnitude_difference", "intrinsic_multiscale_distance"])
def test_where_samples_do_not_correspond_there_are_none(measure: str) -> None:
    x = torch.randn(40, 9)
    result = compare([TWO], x, measure=measure)
    assert result.chance is None
    assert "does not depend on which samples correspond" in result.chance_note
    with pytest.raises(ValueError, match="does not depend on which samples correspond"):
        compare([TWO], x, measure=measure, permutations=3)


@pytest.mark.parametrize("measure", ["cka", "cka_rbf", "cca"])
def test_positions_of_a_sample_belong_together(measure: str) -> None:
    images = torch.randn(12, 3, 4, 4)
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    result = compare([model], images, batch_size=4, maps="positions", measure=measure)
    assert result.chance is None
    assert "several rows" in result.chance_note
    if measure != "cka":
        with pytest.raises(ValueError, match="permutations: expected None for maps='positions'"):
            compare([model], images, maps="positions", measure=measure, permutations=5)


def test_wrong_numbers_of_permutations() -> None:
    x = torch.randn(20, 9)
    with pytest.raises(ValueError, match="permutations: expected None for cka, whose chance level"):
        compare([TWO], x, permutations=5)
    with pytest.raises(ValueError, match="permutations: expected 0 to"):
        compare([TWO], x, measure="cca", permutations=-1)
    with pytest.raises(TypeError, match="permutations: expected an int, got float"):
        compare([TWO], x, measure="cca", permutations=2.5)


@pytest.mark.parametrize("name", [n for n in measure_names() if n != "cka"])
def test_every_measure_has_one_or_says_why(name: str) -> None:
    result = compare([TWO], samples(40), measure=name)
    known = result.chance is not None and np.isfinite(result.chance).all()
    assert known or "does not depend on which samples" in result.chance_note


class TestMerge:
    def test_is_the_level_of_all_batches(self) -> None:
        batches = [torch.randn(8, 9) * scale for scale in (1.0, 3.0, 0.5, 2.0)]
        whole = compare([TWO], batches, estimator="biased")
        first, second = (
            compare([TWO], some, estimator="biased") for some in (batches[:1], batches[1:])
        )
        merged = first.merge(second)
        np.testing.assert_allclose(merged.chance, whole.chance, rtol=1e-6)
        assert merged.chance_note == whole.chance_note

    def test_of_a_layer_that_is_constant_in_one_part(self) -> None:
        x = torch.randn(16, 9)
        dark = x.clone()
        dark[:, :5] = 0.0
        with pytest.warns(UserWarning, match="undefined"):
            constant = compare([TWO], dark, estimator="biased")
        varying = compare([TWO], x, estimator="biased")
        whole = compare([TWO], [dark, x], estimator="biased")
        np.testing.assert_allclose(constant.merge(varying).chance, whole.chance, rtol=1e-6)

    def test_is_not_known_where_one_is_not(self) -> None:
        result = compare([TWO], torch.randn(16, 9), batch_size=8)
        other = compare([TWO], torch.randn(16, 9), batch_size=8)
        merged = result.merge(replace(other, chance=None))
        assert merged.chance is None
        assert merged.chance_note == "not known of both results"

    def test_keeps_the_notes_of_both(self) -> None:
        result = compare([TWO], torch.randn(16, 9), batch_size=8)
        other = compare([TWO], torch.randn(16, 9), batch_size=8)
        one, other = replace(result, notes=("a", "b")), replace(other, notes=("b", "c"))
        assert one.merge(other).notes == ("a", "b", "c")


def test_files_keep_levels_and_notes(tmp_path: Path) -> None:
    result = compare([TWO], torch.randn(40, 9), measure="cca")
    loaded = SimilarityResult.load(result.save(tmp_path / "result.safetensors"))
    np.testing.assert_array_equal(loaded.chance, result.chance)
    assert (loaded.chance_note, loaded.notes) == (result.chance_note, result.notes)
    assert loaded.notes


def test_a_matrix_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match=r"chance must have shape \(8, 8\)"):
        replace(make(), chance=np.zeros((3, 3)))


class TestMinusChance:
    def test_values_and_figures(self) -> None:
        result = replace(make((3, 3)), chance=np.full((6, 6), 0.25))
        grid = result.between(0, 1)
        bare = grid.minus_chance()
        np.testing.assert_allclose(bare.value, grid.value - 0.25)
        (ax,) = (ax for ax in result.plot(minus_chance=True).axes if ax.images)
        np.testing.assert_allclose(ax.images[0].get_array(), grid.value - 0.25)
        assert ax.images[0].get_clim() == (0.0, 1.0)
        assert f"mean same layer {grid.mean_same_layer() - 0.25:.2f}" in ax.texts[0].get_text()
        labels = [ax.get_ylabel() for ax in result.plot(minus_chance=True).axes]
        assert "linear CKA minus chance level" in labels

    def test_errors_stay(self) -> None:
        result = compare([TWO], torch.randn(60, 9), measure="procrustes_similarity")
        grid = result.between(0, 0)
        error = grid.mean_with_error().standard_error
        assert error > 0
        assert grid.minus_chance().mean_with_error().standard_error == pytest.approx(error)

    def test_distances_are_drawn_from_the_lowest_up_to_0(self) -> None:
        result = replace(make((3, 2)), measure="bures_distance", chance=np.full((5, 5), 2.0))
        figure = plot_grids([result.between(0, 1)], minus_chance=True)
        image = next(ax.images[0] for ax in figure.axes if ax.images)
        assert image.get_clim() == pytest.approx((result.value[:3, 3:].min() - 2.0, 0.0))

    def test_without_levels(self) -> None:
        with pytest.raises(ValueError, match="expected the chance levels of a / b, got none"):
            make((3, 2)).plot(minus_chance=True)
