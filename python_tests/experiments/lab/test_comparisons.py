"""Comparisons of views are the library's own, with replicates, and survive their file."""

import numpy as np
import pytest
import torch
from torch import nn

from experiments.lab.comparisons import Comparison, compare_networks
from python_tests.support.in_order import compare
from repsim_fast import models
from repsim_fast.analysis.estimates import jackknife_error
from repsim_fast.analysis.grids import mean_by_distance, mean_off_diagonal


def layers(name, module):
    return isinstance(module, (nn.Conv2d, nn.BatchNorm2d, nn.Linear))


def compared(networks, images, others=None):
    return compare_networks(
        networks, images, others or {}, layers=layers, batch_size=20, device="cpu"
    )


@pytest.fixture(scope="module")
def networks():
    return {str(s): models.build("wrn-10-1", num_classes=10, in_channels=1, seed=s) for s in (0, 1)}


@pytest.fixture(scope="module")
def images():
    return torch.rand(62, 1, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def found(networks, images):
    return compared(networks, images)


def test_values_and_errors_are_those_of_compare(found, networks, images):
    # The last batch, of two images, is left out.
    own = compare(networks, data=images[:60], layers=layers, batch_size=20)
    assert (found.views, found.layers) == (own.models, own.layers)
    assert found.replicates.shape == (3, *own.value.shape)
    np.testing.assert_array_equal(found.value, own.value)
    errors = jackknife_error(found.replicates)
    np.testing.assert_allclose(errors, own.standard_error, rtol=1e-6, atol=1e-12)
    np.testing.assert_array_equal(found.grid("0", "1").value, own.between("0", "1").value)


def test_replicates_are_comparisons_without_a_batch(found, networks, images):
    rest = torch.cat([images[:20], images[40:60]])
    without = compare(networks, data=rest, layers=layers, batch_size=20)
    np.testing.assert_allclose(found.replicates[1], without.value, atol=1e-6)


def test_each_network_runs_once_a_batch(networks, images):
    runs = []
    with_hook = networks["0"].register_forward_hook(lambda _, x, __: runs.append(len(x[0])))
    compared({"0": networks["0"]}, images[:40])
    with_hook.remove()
    assert runs == [20, 20, 2]  # the two of the last are for who makes what a layer shows


def test_other_images_are_those_of_the_same_positions(networks, images):
    views = {"benign": networks["0"], "moved": networks["0"]}
    moved = (images + 0.1 * torch.rand_like(images)).clamp(0, 1)
    both = compared(views, images, {"moved": moved})
    alone = compared({"moved": networks["0"]}, moved)
    n = len(alone.value)
    np.testing.assert_allclose(both.value[n:, n:], alone.value, atol=1e-5)
    np.testing.assert_allclose(both.replicates[:, n:, n:], alone.replicates, atol=1e-5)
    assert (both.value[:n, n:].diagonal() < 1).all()


def test_estimates_are_of_the_cells_of_the_views(found):
    gap = found.estimate(lambda a, b: mean_off_diagonal(a) - b.mean(), ("0", "0"), ("1", "0"))
    n = len(found.layers[0])
    left_out = [mean_off_diagonal(r[:n, :n]) - r[n:, :n].mean() for r in found.replicates]
    assert gap.value == mean_off_diagonal(found.value[:n, :n]) - found.value[n:, :n].mean()
    assert gap.standard_error == pytest.approx(float(jackknife_error(left_out)))
    curve = found.curve(mean_by_distance, ("0", "0"))
    assert len(curve) == n
    assert (curve[0].value, curve[0].standard_error) == (pytest.approx(1), pytest.approx(0))
    assert curve[3] == found.estimate(lambda g: mean_by_distance(g)[3], ("0", "0"))
    assert found.same_layer()[0][0].value == pytest.approx(1)


def test_a_comparison_survives_its_file(found, tmp_path):
    found.save(tmp_path / "new" / "x.safetensors")
    held = Comparison.load(tmp_path / "new" / "x.safetensors")
    assert (held.views, held.layers) == (found.views, found.layers)
    np.testing.assert_allclose(held.value, found.value, atol=1e-7)
    np.testing.assert_allclose(held.replicates, found.replicates, atol=1e-7)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.safetensors"]


def test_arrays_of_any_order_in_memory_survive(tmp_path):
    value = np.asfortranarray(np.arange(4.0).reshape(2, 2))
    replicates = np.arange(12.0).reshape(2, 2, 3).transpose(2, 0, 1)
    Comparison(("a",), (("x", "y"),), value, replicates).save(tmp_path / "x")
    held = Comparison.load(tmp_path / "x")
    np.testing.assert_array_equal(held.value, value)
    np.testing.assert_array_equal(held.replicates, replicates)


def test_a_constant_layer_is_unknown_everywhere(images):
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Linear(5, 3), nn.Linear(3, 2))
    nn.init.zeros_(network[2].weight)
    with pytest.warns(UserWarning, match="they do not vary"):
        found = compared({"a": network}, images)
    assert np.isnan(found.value[1]).all()
    assert np.isnan(found.replicates[:, :, 1]).all()
    assert found.value[0, 0] == pytest.approx(1)
