"""Indices of grids whose structure is known."""

import numpy as np
import pytest
import torch
from scipy import stats

from repsim_fast.analysis import grids

STAGES = ("stem", *("stage1",) * 4, *("stage2",) * 4, *("stage3",) * 4, "head")
SIZE = len(STAGES)
APART = np.abs(np.subtract.outer(np.arange(SIZE), np.arange(SIZE)))
SAME = np.equal.outer(np.array(STAGES), np.array(STAGES))


def test_stages_are_read_from_the_layers_names():
    layers = ("conv1", "stage1.0.bn1", "stage2.0.conv1", "bn", "fc")
    assert grids.stages_by_name(layers) == ("stem", "stage1", "stage2", "head", "head")
    assert grids.stages_by_name(("conv1", "layer1.0", "fc"), "layer") == ("stem", "layer1", "head")
    assert grids.stages_by_name(("a", "b")) == ("stem", "stem")


def test_blocks_of_ones_have_index_and_contrast_one():
    blocks = SAME.astype(float)
    assert grids.block_index(blocks, STAGES) == pytest.approx(1)
    assert grids.stage_contrast(blocks, STAGES) == pytest.approx(1)


def test_similarity_that_depends_on_distance_alone_has_no_blocks():
    decay = 0.9**APART
    assert grids.block_index(decay, STAGES) == pytest.approx(0, abs=1e-12)
    assert grids.stage_contrast(decay, STAGES) > 0.2  # which the contrast takes for stages


def test_blocks_on_top_of_a_decay_are_measured():
    assert grids.block_index(0.8**APART * 0.5 + 0.3 * SAME, STAGES) == pytest.approx(0.3)


def test_stages_may_be_the_callers():
    """Blocks that begin one layer late, as where its first layer shows what was made before."""
    late = ("stem", "stem", *STAGES[1:-2], "head")
    shifted = np.equal.outer(np.array(late), np.array(late)).astype(float)
    assert grids.block_index(shifted, late) == pytest.approx(1)
    assert grids.block_index(shifted, STAGES) < 0.7


def test_without_stages_there_is_no_index():
    assert np.isnan(grids.block_index(0.9**APART, ("stem",) * SIZE))
    assert np.isnan(grids.block_index(0.9**APART, ("stage1",) * SIZE))


def test_means_leave_out_the_diagonal_and_unknown_cells():
    grid = np.full((SIZE, SIZE), 0.25)
    np.fill_diagonal(grid, 1)
    grid[3] = grid[:, 3] = np.nan
    assert grids.mean_off_diagonal(grid) == pytest.approx(0.25)
    assert grids.mean_same_layer(grid) == pytest.approx(1)
    assert grids.long_range(grid) == pytest.approx(0.25)
    assert grids.stage_block(grid, STAGES, "stage1", "stage1") == pytest.approx(0.25)
    assert grids.stage_mean(grid.diagonal(), STAGES, "stage1") == pytest.approx(1)
    assert grids.block_index(grid, STAGES) == pytest.approx(0)
    assert np.isnan(grids.mean_off_diagonal(np.full((2, 2), np.nan)))


def test_means_are_of_the_cells_they_name():
    grid = np.arange(16.0).reshape(4, 4)
    assert grids.mean_off_diagonal(grid) == (grid.sum() - np.trace(grid)) / 12
    assert grids.long_range(grid) == np.mean([2, 3, 7, 8, 12, 13])
    stages = ("stem", "stage1", "stage1", "stage2")
    assert grids.stage_block(grid, stages, "stage1", "stage2") == np.mean([7, 11])
    assert grids.stage_block(grid, stages, "stage2", "stage1") == np.mean([13, 14])
    assert grids.stage_block(grid, stages, "stage1", "stage1") == np.mean([6, 9])


def test_by_distance():
    np.testing.assert_allclose(grids.mean_by_distance(0.9**APART), 0.9 ** np.arange(SIZE))


def test_rank_correlation_is_scipys():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 6, size=(2, 8, 8)).astype(float)  # with ties
    a[2, 3] = b[4, 4] = np.nan
    known = ~(np.isnan(a) | np.isnan(b))
    expected = stats.spearmanr(a[known], b[known]).statistic
    assert grids.rank_correlation(a, b) == pytest.approx(expected, abs=1e-14)
    assert np.isnan(grids.rank_correlation(np.ones(3), np.arange(3.0)))
    assert np.isnan(grids.rank_correlation(np.full(3, np.nan), np.arange(3.0)))


@pytest.mark.parametrize("kind", [torch.from_numpy, np.ndarray.tolist], ids=["tensor", "list"])
@pytest.mark.parametrize(
    "number",
    [
        grids.mean_off_diagonal,
        grids.long_range,
        lambda g: grids.mean_by_distance(g)[1],
        lambda g: grids.stage_block(g, STAGES, "stage1", "stage2"),
        lambda g: grids.stage_mean(g[3], STAGES, "stage1"),
        lambda g: grids.stage_contrast(g, STAGES),
        lambda g: grids.block_index(g, STAGES),
        lambda g: grids.rank_correlation(g, np.arange(SIZE**2.0).reshape(SIZE, SIZE)),
    ],
)
def test_grids_of_tensors_leave_out_the_same_cells(number, kind):
    """What `similarity.grid` returns; NumPy's mask of a tensor's NaN is one of other numbers."""
    grid = np.random.default_rng(0).random((SIZE, SIZE))
    grid[2] = grid[:, 2] = np.nan
    assert np.isfinite(number(grid))
    assert number(kind(grid)) == number(grid)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: grids.mean_off_diagonal(g[:2]), "grid: expected as many rows as columns"),
        (lambda g: grids.block_index(g[0], STAGES), r"grid: expected .* got shape \(14,\)"),
        (lambda g: grids.block_index(g, STAGES[1:]), "stages: expected a label for each of 14"),
        (lambda g: grids.stage_mean(g[0], STAGES[1:], "stem"), "stages: expected a label"),
        (lambda g: grids.rank_correlation(g, g[0]), "b: expected the shape of a"),
    ],
)
def test_what_does_not_fit_together(call, message):
    with pytest.raises(ValueError, match=message):
        call(np.ones((SIZE, SIZE)))
