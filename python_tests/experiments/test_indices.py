"""Indices of grids whose structure is known."""

from importlib import import_module

import numpy as np
import pytest

indices = import_module("experiments.robust_representations.indices")

STAGES = ("stem", *("stage1",) * 4, *("stage2",) * 4, *("stage3",) * 4, "head")
SIZE = len(STAGES)
APART = np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE)))
SAME = np.equal.outer(np.array(STAGES), np.array(STAGES))


def test_stages_are_read_from_the_layers_names():
    layers = ("conv1", "stage1.0.bn1", "stage2.0.conv1", "bn", "fc")
    assert indices.stages_of(layers) == ("stem", "stage1", "stage2", "head", "head")


def test_blocks_of_ones_have_index_and_contrast_one():
    blocks = SAME.astype(float)
    assert indices.block_index(blocks, STAGES) == pytest.approx(1)
    assert indices.stage_contrast(blocks, STAGES) == pytest.approx(1)


def test_similarity_that_depends_on_distance_alone_has_no_blocks():
    decay = 0.9**APART
    assert indices.block_index(decay, STAGES) == pytest.approx(0, abs=1e-12)
    assert indices.stage_contrast(decay, STAGES) > 0.2  # which the contrast takes for stages


def test_blocks_on_top_of_a_decay_are_measured():
    assert indices.block_index(0.8**APART * 0.5 + 0.3 * SAME, STAGES) == pytest.approx(0.3)


def test_means_leave_out_the_diagonal_and_unknown_cells():
    grid = np.full((SIZE, SIZE), 0.25)
    np.fill_diagonal(grid, 1)
    grid[3] = grid[:, 3] = np.nan
    assert indices.mean_off_diagonal(grid) == pytest.approx(0.25)
    assert indices.mean_same_layer(grid) == pytest.approx(1)
    assert indices.long_range(grid) == pytest.approx(0.25)
    assert indices.stage_block(grid, STAGES, "stage1", "stage1") == pytest.approx(0.25)
    assert indices.block_index(grid, STAGES) == pytest.approx(0)


def test_by_distance():
    np.testing.assert_allclose(indices.by_distance(0.9**APART), 0.9 ** np.arange(SIZE))


def test_jackknife_of_a_mean_is_its_standard_error():
    sample = np.random.default_rng(0).normal(size=20)
    left_out = [np.delete(sample, i).mean() for i in range(20)]
    found = indices.jackknife(sample.mean(), left_out)
    assert found.se == pytest.approx(sample.std(ddof=1) / np.sqrt(20))
    assert np.isnan(indices.jackknife(1.0, [1.0]).se)


@pytest.mark.parametrize(
    ("low", "high", "p"),
    [((1, 2, 3), (4, 5, 6), 1 / 20), ((4, 5, 6), (1, 2, 3), 1.0), ((1, 1, 1), (1, 1, 1), 1.0)],
)
def test_permutation_test_is_exact(low, high, p):
    assert indices.permutation_test(low, high) == pytest.approx(p)


def test_one_sided_p():
    assert indices.one_sided_p(indices.Estimate(1.645, 1.0)) == pytest.approx(0.05, abs=1e-4)
    assert np.isnan(indices.one_sided_p(indices.Estimate(1.0, float("nan"))))


def test_jackknife_errors_are_those_of_each_cell():
    replicates = np.random.default_rng(1).normal(size=(5, 2, 3))
    errors = indices.jackknife_errors(replicates)
    assert errors[1, 2] == pytest.approx(indices.jackknife(0.0, replicates[:, 1, 2]).se)
    assert np.isnan(indices.jackknife_errors(replicates[:1])).all()


def test_numbers_of_several_seeds():
    own = [indices.Estimate(v, 0.5) for v in (1.0, 2.0, 3.0)]
    assert indices.mean_over_seeds(own) == indices.over_seeds([1.0, 2.0, 3.0])
    assert indices.mean_over_seeds(own[:1]) == own[0]
    spread = indices.spread_over_seeds([1.0, 2.0, 3.0])
    assert (spread.value, spread.se) == (1.0, 0.5)
    assert np.isnan(indices.spread_over_seeds([1.0]).value)


def test_differences_and_ratios_carry_both_errors():
    a, b = indices.Estimate(6.0, 0.3), indices.Estimate(2.0, 0.4)
    assert indices.difference(a, b) == indices.Estimate(4.0, pytest.approx(0.5))
    found = indices.ratio(a, b)
    assert found.value == 3
    assert found.se == pytest.approx(3 * np.hypot(0.3 / 6, 0.4 / 2))
    assert indices.ratio(a, indices.Estimate(0.0, 0.1)).value == np.inf


def test_an_accuracy_of_none_has_an_error():
    assert indices.share(0.2, 400) == indices.Estimate(0.2, pytest.approx(0.02, rel=0.01))
    assert indices.share(0.0, 400).se == pytest.approx(1 / 400, rel=0.01)
