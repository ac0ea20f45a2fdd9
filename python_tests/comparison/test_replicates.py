"""Replicates of results, and what follows from them: errors of means and differences, merging."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file
from torch import Tensor, nn

from python_tests.support.in_order import compare
from repsim_fast import Grid, SimilarityResult
from repsim_fast.analysis.estimates import difference
from repsim_fast.comparison.grid import Matrix
from repsim_fast.similarity import grid as grid_of
from repsim_fast.similarity.streaming.minibatch import MAX_GROUPS

LAYERS = ["0", "1", "4", "7"]


def jackknife(left_out: list[float]) -> float:
    """Written out (Efron and Tibshirani 1993, eq. 11.5)."""
    groups = len(left_out)
    mean = sum(left_out) / groups
    return float(((groups - 1) / groups * sum((v - mean) ** 2 for v in left_out)) ** 0.5)


@pytest.fixture
def batches(images: Tensor) -> list[Tensor]:
    return list(images.split(8))


@pytest.fixture
def result(net_a: nn.Module, net_b: nn.Module, batches: list[Tensor]) -> SimilarityResult:
    return compare({"a": net_a, "b": net_b}, batches, layers=LAYERS)


def without(
    models: dict[str, nn.Module], batches: list[Tensor], **options: object
) -> list[SimilarityResult]:
    """Comparisons that never see one of the batches."""
    return [
        compare(models, batches[:g] + batches[g + 1 :], layers=LAYERS, **options)
        for g in range(len(batches))
    ]


class TestOfMinibatchCKA:
    @pytest.mark.parametrize("estimator", ["unbiased", "biased"])
    def test_are_the_comparisons_without_each_batch(
        self, net_a: nn.Module, net_b: nn.Module, batches: list[Tensor], estimator: str
    ) -> None:
        models = {"a": net_a, "b": net_b}
        result = compare(models, batches, layers=LAYERS, estimator=estimator)
        expected = np.stack([r.value for r in without(models, batches, estimator=estimator)])
        assert result.replicates is not None
        np.testing.assert_allclose(result.replicates, expected, rtol=0, atol=1e-12)
        grid = result.between("b", "a")
        np.testing.assert_array_equal(grid.replicates, result.replicates[:, 4:, :4])
        assert result.group_samples == (8,) * 5

    def test_give_the_errors_of_cells(self, result: SimilarityResult) -> None:
        assert result.replicates is not None
        cell = jackknife(list(result.replicates[:, 2, 5]))
        assert result.standard_error[2, 5] == pytest.approx(cell, rel=1e-9)
        errors = result.standard_error_of(lambda r: r.value)
        np.testing.assert_allclose(errors, result.standard_error, rtol=0, atol=1e-12)

    @pytest.mark.parametrize(
        "figure",
        [Grid.mean, Grid.mean_off_diagonal, Grid.mean_same_layer],
        ids=lambda f: f.__name__,
    )
    def test_give_the_errors_of_means(
        self,
        net_a: nn.Module,
        net_b: nn.Module,
        batches: list[Tensor],
        result: SimilarityResult,
        figure: Callable[[Grid], float],
    ) -> None:
        left_out = without({"a": net_a, "b": net_b}, batches)
        expected = jackknife([figure(r.between("a", "b")) for r in left_out])
        grid = result.between("a", "b")
        assert grid.standard_error_of(figure) == pytest.approx(expected, rel=1e-6)
        # Cells of the same samples err together, yet not more than the mean of their errors.
        assert grid.standard_error_of(Grid.mean) <= grid.standard_error.mean()

    def test_give_the_errors_of_curves(self, result: SimilarityResult) -> None:
        grid = result.between("a", "a")
        errors = grid.standard_error_of(Grid.mean_by_distance)
        assert errors.shape == (4,)
        assert grid.replicates is not None
        at_two = [(r[0, 2] + r[1, 3] + r[2, 0] + r[3, 1]) / 4 for r in grid.replicates]
        assert errors[2] == pytest.approx(jackknife(at_two), rel=1e-9)

    def test_give_the_error_of_a_difference_of_grids(
        self,
        net_a: nn.Module,
        net_b: nn.Module,
        batches: list[Tensor],
        result: SimilarityResult,
    ) -> None:
        def more_alike(r: SimilarityResult) -> float:
            return r.between("a", "a").mean_off_diagonal() - r.between("b", "b").mean_off_diagonal()

        left_out = without({"a": net_a, "b": net_b}, batches)
        expected = jackknife([more_alike(r) for r in left_out])
        assert result.standard_error_of(more_alike) == pytest.approx(expected, rel=1e-6)

    def test_give_the_error_of_a_difference_of_results(
        self, net_a: nn.Module, net_b: nn.Module, batches: list[Tensor], result: SimilarityResult
    ) -> None:
        one = compare({"a": net_a}, batches, layers=LAYERS)
        other = compare({"b": net_b}, batches, layers=LAYERS)
        error = one.standard_error_of(
            lambda a, b: a.between(0, 0).mean() - b.between(0, 0).mean(), other
        )
        together = result.standard_error_of(
            lambda r: r.between("a", "a").mean() - r.between("b", "b").mean()
        )
        assert error == pytest.approx(together, rel=1e-9)
        fewer = compare({"b": net_b}, batches[:3], layers=LAYERS)
        with pytest.raises(
            ValueError, match=r"over the same batches.*\(8, 8, 8, 8, 8\).*\(8, 8, 8"
        ):
            one.standard_error_of(lambda a, b: 0.0, fewer)

    def test_layers_without_a_value_stay_without(self, batches: list[Tensor]) -> None:
        class Constant(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                return torch.full_like(x, 0.3)

        model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3), Constant(), nn.Linear(3, 3))
        with pytest.warns(UserWarning, match="undefined"):
            result = compare([model], batches, layers=["1", "2"])
        assert result.replicates is not None
        assert np.isnan(result.replicates[:, 1]).all()
        assert np.isnan(result.replicates[:, :, 1]).all()
        assert np.isfinite(result.replicates[:, 0, 0]).all()

    def test_one_batch_has_none(self, net_a: nn.Module, images: Tensor) -> None:
        result = compare([net_a], images, layers=LAYERS)
        assert result.replicates is None
        assert result.between(0, 0).replicates is None
        assert np.isnan(result.between(0, 0).standard_error_of(Grid.mean))
        assert np.isnan(result.standard_error_of(lambda r: r.value)).all()

    def test_many_batches_are_left_out_in_groups(self, net_a: nn.Module) -> None:
        images = torch.rand(4 * (MAX_GROUPS + 2), 3, 8, 8)
        batches = list(images.split(4))
        result = compare([net_a], batches, layers=["4", "7"])
        assert result.group_samples == (8,) * (MAX_GROUPS // 2 + 1)
        expected = compare([net_a], batches[:2] + batches[4:], layers=["4", "7"])
        assert result.replicates is not None
        np.testing.assert_allclose(result.replicates[1], expected.value, rtol=0, atol=1e-12)


class TestOfOtherMeasures:
    def test_are_the_values_without_each_group_of_samples(
        self, net_a: nn.Module, images: Tensor
    ) -> None:
        options = {"layers": ["4", "7"], "maps": "pool", "measure": "procrustes_similarity"}
        result = compare([net_a], images, **options, jackknife=5)
        features = [
            torch.cat([compare_features(net_a, x, name) for x in images.split(16)])
            for name in ("4", "7")
        ]
        position = torch.arange(40)
        expected = [
            grid_of("procrustes_similarity", [f[position % 5 != g] for f in features])
            for g in range(5)
        ]
        np.testing.assert_allclose(result.replicates, torch.stack(expected), atol=1e-5)
        errors = [jackknife([float(v[0, 1]) for v in expected])]
        assert result.standard_error[0, 1] == pytest.approx(errors[0], rel=1e-3)
        assert result.group_samples == (8,) * 5

    def test_are_none_without_a_jackknife(self, net_a: nn.Module, images: Tensor) -> None:
        options = {"layers": LAYERS, "maps": "pool", "measure": "procrustes_distance"}
        result = compare([net_a], images, **options, jackknife=0)
        assert result.replicates is None
        assert np.isnan(result.between(0, 0).standard_error_of(Grid.mean))


def compare_features(model: nn.Module, x: Tensor, name: str) -> Tensor:
    """A layer's output, pooled, of a model whose layers run in a row."""
    with torch.no_grad():
        for number, module in enumerate(model):  # type: ignore[arg-type]
            x = module(x)
            if str(number) == name:
                return x.mean((2, 3)) if x.ndim > 2 else x
    raise KeyError(name)


class TestMerge:
    def test_is_the_comparison_of_all_batches(
        self, net_a: nn.Module, net_b: nn.Module, batches: list[Tensor], result: SimilarityResult
    ) -> None:
        models = {"a": net_a, "b": net_b}
        first = compare(models, batches[:2], layers=LAYERS)
        second = compare(models, batches[2:], layers=LAYERS)
        merged = first.merge(second)
        np.testing.assert_allclose(merged.value, result.value, rtol=0, atol=1e-12)
        np.testing.assert_allclose(merged.standard_error, result.standard_error, atol=1e-12)
        np.testing.assert_allclose(merged.replicates, result.replicates, rtol=0, atol=1e-12)
        assert (merged.n_samples, merged.n_batches) == (40, 5)
        assert merged.seconds["total"] == first.seconds["total"] + second.seconds["total"]
        assert (first.n_batches, second.n_batches) == (2, 3)

    def test_groups_come_to_one_size(self, net_a: nn.Module, images: Tensor) -> None:
        coarse = compare([net_a], images[:24], batch_size=8, layers=["7"])
        fine = compare([net_a], images[24:], batch_size=4, layers=["7"])
        for merged in (coarse.merge(fine), fine.merge(coarse)):
            assert sorted(merged.group_samples) == [8] * 5

    def test_a_layer_that_is_constant_in_one_part(self, net_a: nn.Module, images: Tensor) -> None:
        dark = torch.zeros_like(images)
        with pytest.warns(UserWarning, match="undefined"):
            constant = compare([net_a], dark, batch_size=8, layers=["7"])
        with pytest.warns(UserWarning, match="undefined"):
            bright = compare([net_a], dark + 1, batch_size=8, layers=["7"])
        varying = compare([net_a], images, batch_size=8, layers=["7"])
        assert constant.merge(varying).value == pytest.approx(1.0)
        assert np.isnan(constant.merge(bright).value).all()

    def test_what_does_not_fit_is_refused(
        self, net_a: nn.Module, images: Tensor, result: SimilarityResult
    ) -> None:
        with pytest.raises(ValueError, match=r"other: expected models \('a', 'b'\), got \('a',\)"):
            result.merge(compare({"a": net_a}, images, layers=LAYERS))
        with pytest.raises(ValueError, match="expected estimator 'unbiased', got 'biased'"):
            result.merge(replace(result, estimator="biased"))
        with pytest.raises(ValueError, match="other has no sums of HSIC to merge"):
            result.merge(replace(result, hsic=None))

    def test_settings_that_differ_are_both_told(self, net_a: nn.Module, images: Tensor) -> None:
        one, other = (
            compare([net_a], part, batch_size=8, layers=["7"]) for part in images.split(20)
        )
        other = replace(other, settings={**other.settings, "data": "more"})
        merged = one.merge(other).settings
        told = {"data": f"{one.settings['data']}; more", "merged": 2}
        assert merged == {**one.settings, **told}

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("maps", "pool"),
            ("channels", "first"),
            ("calls", "first"),
            ("autocast", torch.bfloat16),
            ("precision", "bfloat16"),
            ("inputs", lambda x, y: x),
        ],
    )
    def test_settings_that_change_values_are_refused(
        self, net_a: nn.Module, images: Tensor, argument: str, value: object
    ) -> None:
        one = compare([net_a], images[:20], layers=["7"])
        other = compare([net_a], images[20:], layers=["7"], **{argument: value})
        with pytest.raises(ValueError, match=f"other: expected {argument} .*, got "):
            one.merge(other)

    def test_other_weights_are_refused(self, net_a: nn.Module, images: Tensor) -> None:
        one = compare([net_a], images[:20], layers=["7"])
        changed = copy.deepcopy(net_a)
        with torch.no_grad():
            next(changed.parameters()).mul_(1.01)
        with pytest.raises(ValueError, match="other: expected weights"):
            one.merge(compare([changed], images[20:], layers=["7"]))

    @pytest.mark.parametrize("seed", [0, 1])
    def test_the_same_samples_twice_are_refused(
        self, net_a: nn.Module, images: Tensor, seed: int
    ) -> None:
        one = compare([net_a], images, batch_size=8, layers=["7"])
        again = compare([net_a], images[:20], batch_size=4, layers=["7"], seed=seed)
        for pair in ((one, one), (one, again), (again, one)):
            with pytest.raises(ValueError, match="samples that this one has not, got some of the"):
                pair[0].merge(pair[1])
        parts = [compare([net_a], x, batch_size=8, layers=["7"]) for x in images.split(16)[:2]]
        with pytest.raises(ValueError, match="would count twice"):
            parts[0].merge(parts[1]).merge(again)


class TestOtherSamples:
    def results(self, net: nn.Module, *several: Tensor, **options: Any) -> list[SimilarityResult]:
        return [compare([net], x, batch_size=8, layers=["4", "7"], **options) for x in several]

    def test_standard_errors_of_results_over_others_are_refused(
        self, net_a: nn.Module, images: Tensor
    ) -> None:
        (one,) = self.results(net_a, images)
        (other_order,) = self.results(net_a, images, shuffle=True)
        (other_samples,) = self.results(net_a, images + 0.1)
        for other in (other_order, other_samples):
            with pytest.raises(ValueError, match="others: expected results over the same samples"):
                one.standard_error_of(lambda a, b: 0.0, other)
        (attacked,) = self.results(net_a, images, inputs=lambda x, y: x + 0.1)
        assert one.standard_error_of(lambda a, b: (a.value - b.value).mean(), attacked) > 0

    def test_files_tell_and_those_that_do_not_are_warned_of(
        self, net_a: nn.Module, images: Tensor, tmp_path: Path
    ) -> None:
        one, other = self.results(net_a, images[:16], images[16:32])
        loaded = SimilarityResult.load(one.save(tmp_path / "one.safetensors"))
        with pytest.raises(ValueError, match="count twice"):
            one.merge(loaded)
        assert loaded.order_digest == one.order_digest != other.order_digest
        older = replace(one, order_digest="", sample_digests=())
        with pytest.warns(UserWarning, match="which samples a result is over is not known"):
            assert older.merge(other).order_digest == ""
        with pytest.warns(UserWarning, match="which samples a result is over is not known"):
            older.standard_error_of(lambda a, b: 0.0, other)


class TestFiles:
    @pytest.mark.parametrize("measure", ["cka", "procrustes_similarity"])
    def test_keep_the_replicates(
        self, net_a: nn.Module, images: Tensor, tmp_path: Path, measure: str
    ) -> None:
        options = {} if measure == "cka" else {"jackknife": 4}
        result = compare([net_a], images, batch_size=10, maps="pool", measure=measure, **options)
        loaded = SimilarityResult.load(result.save(tmp_path / "result.safetensors"))
        np.testing.assert_array_equal(loaded.replicates, result.replicates)
        assert loaded.group_samples == (10,) * 4
        assert loaded.between(0, 0).standard_error_of(Grid.mean) == result.between(
            0, 0
        ).standard_error_of(Grid.mean)

    def test_of_format_1_are_read_without_them(self, tmp_path: Path) -> None:
        arrays = {"value": np.eye(2), "standard_error": np.full((2, 2), 0.1)}
        labels = {"models": ["a"], "layers": [["x", "y"]], "measure": "cka"}
        numbers = {"estimator": "unbiased", "n_samples": 64, "n_batches": 4, "settings": {}}
        metadata = {
            "format": "repsim_fast.SimilarityResult",
            "format_version": "1",
            "result": json.dumps({**labels, **numbers, "versions": {}, "seconds": {}}),
        }
        save_file(arrays, tmp_path / "old.safetensors", metadata)
        result = SimilarityResult.load(tmp_path / "old.safetensors")
        np.testing.assert_array_equal(result.value, np.eye(2))
        assert result.replicates is None
        assert np.isnan(result.between(0, 0).standard_error_of(Grid.mean))


def test_matrices_of_another_size_are_refused(result: SimilarityResult) -> None:
    wrong: Matrix = np.zeros((5, 3, 3))
    for name in ("hsic", "left_out"):
        with pytest.raises(ValueError, match=rf"{name} must have shape \(5, 8, 8\), one matrix"):
            replace(result, **{name: wrong})


def test_two_cells_of_the_same_samples_are_subtracted_with_the_error_of_the_difference(
    result: SimilarityResult,
) -> None:
    grid = result.between("a", "b")
    found = difference(grid["0", "1"], grid["4", "7"])
    error = grid.standard_error_of(lambda g: g.value[0, 1] - g.value[2, 3])
    assert found.standard_error == pytest.approx(error)
    assert found.degrees == len(grid.replicates) - 1
    unknown = replace(grid, replicates=None)["0", "1"]
    assert unknown == grid["0", "1"]
    assert not unknown.left_out
