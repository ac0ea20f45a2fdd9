"""Blocks are found in maps that have them, and in few that have decay with distance alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from repsim_fast.analysis.blocks import find_blocks
from repsim_fast.analysis.grids import block_index


def apart(layers):
    return np.abs(np.subtract.outer(np.arange(layers), np.arange(layers)))


def rough(layers, seed=0):
    return 1e-3 * np.random.default_rng(seed).standard_normal((layers, layers))


def by_time(times):
    """Similarity that decays with the time between layers."""
    return np.exp(-np.abs(np.subtract.outer(times, times)) / (len(times) / 3))


def features(decay, samples, generator):
    """Correlations of Gaussian features of a stationary covariance over layers."""
    values, vectors = np.linalg.eigh(decay)
    mixing = vectors * np.sqrt(np.clip(values, 0, None))
    return np.corrcoef(mixing @ generator.standard_normal((len(decay), samples)))


PUBLISHED = json.loads((Path(__file__).parent / "published_stream.json").read_text())


def test_the_published_maps_have_blocks_in_the_standard_network_alone():
    """The known case of the index by stages; and of borders, found where a stage ends."""
    standard, robust = (np.array(PUBLISHED[kind]) for kind in ("standard", "robust"))
    made_by = PUBLISHED["made_by"]
    assert block_index(standard, made_by) == pytest.approx(0.135, abs=0.0015)
    assert block_index(robust, made_by) == pytest.approx(-0.049, abs=0.0015)
    found = find_blocks(standard, surrogates=999)
    assert found.borders == (5,)
    assert found.p_value < 0.01
    assert find_blocks(robust, surrogates=999).p_value > 0.5


@pytest.mark.parametrize("layers", [12, 30, 80])
def test_known_blocks_are_found_where_they_are(layers):
    label = np.arange(layers) * 3 // layers
    borders = tuple(int(b) for b in np.flatnonzero(np.diff(label)) + 1)
    blocks = 0.6 * np.exp(-apart(layers) / (layers / 3)) + 0.4 * np.equal.outer(label, label)
    found = find_blocks(blocks + rough(layers))
    assert found.borders == borders
    assert found.p_value == max(found.p_values) == 1 / 200
    assert [len(r) for r in found.ranges] == list(np.bincount(label))
    # The same as sudden steps of a decay.
    steps = np.where(np.isin(np.arange(layers), borders), layers / 6, 0.3).cumsum()
    assert find_blocks(by_time(steps) + rough(layers)).borders == borders


@pytest.mark.parametrize("layers", [12, 30, 80])
def test_decay_alone_is_no_block(layers):
    even, faster = np.arange(layers), np.linspace(0, 1, layers) ** 2 * layers
    for times in (even, faster):
        found = find_blocks(by_time(times) + rough(layers))
        assert (found.borders, len(found.ranges)) == ((), 1)
        assert found.p_value > 0.2


def test_p_values_of_decay_alone_are_those_of_chance():
    """400 maps of four kinds; at level 0.05, at most 10 % of them may have a border."""
    generator = np.random.default_rng(3)
    p_values = []
    for layers, samples in ((13, 20), (13, 200), (20, 20), (20, 200)):
        for decay in (np.exp(-apart(layers) / (layers / 4)), 1 - 0.8 * apart(layers) / layers):
            p_values += [
                find_blocks(features(decay, samples, generator), surrogates=39, seed=seed).p_value
                for seed in range(50)
            ]
    assert len(p_values) == 400
    assert np.mean(np.array(p_values) <= 0.05) <= 0.1
    assert np.mean(np.array(p_values) <= 0.5) > 0.2  # they are no larger than they must be


@pytest.mark.parametrize("drop", [0.0, 0.1, 0.3])
def test_power(drop):
    """Features of 20 layers with a drop in the middle, 200 samples."""
    label = np.arange(20) // 10
    decay = (1 - drop) * 0.98 ** apart(20) + drop * np.equal.outer(label, label)
    generator = np.random.default_rng(5)
    found = [find_blocks(features(decay, 200, generator), surrogates=99) for _ in range(20)]
    rate = np.mean([10 in one.borders for one in found])
    assert rate >= 0.9 if drop else rate <= 0.1


def test_a_border_must_matter():
    label = np.repeat([0, 1], 8)
    small = 0.9 ** apart(16) + 0.005 * np.equal.outer(label, label)
    np.fill_diagonal(small, 1)
    assert find_blocks(small).p_value == 1
    assert find_blocks(small, least=0.001).borders == (8,)


def test_the_same_seed_gives_the_same_p_values():
    noisy = features(0.8 ** apart(10), 20, np.random.default_rng(0))
    one, two, other = (find_blocks(noisy, least=0.0, seed=s) for s in (1, 1, 2))
    assert one == two
    assert one.p_value != other.p_value


def test_bad_maps_are_named():
    for shape in ((3, 4), (4,)):
        with pytest.raises(ValueError, match="grid: expected as many rows as columns"):
            find_blocks(np.ones(shape))
    with pytest.raises(ValueError, match="grid: expected at least 4 layers, got 3"):
        find_blocks(np.ones((3, 3)))
    unknown = np.ones((5, 5))
    unknown[2] = np.nan
    with pytest.raises(ValueError, match="expected known similarities, 9 cells have others"):
        find_blocks(unknown)
    with pytest.raises(ValueError, match="surrogates: expected at least 1, got 0"):
        find_blocks(np.ones((5, 5)), surrogates=0)
