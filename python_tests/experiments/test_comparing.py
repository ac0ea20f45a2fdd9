"""What is kept of each batch gives the library's own values and errors."""

from importlib import import_module

import numpy as np
import pytest
import torch

from repsim_fast import compare, models

comparing = import_module("experiments.robust_representations.comparing")


@pytest.fixture(scope="module")
def networks():
    return {str(s): models.build("wrn-10-1", num_classes=10, in_channels=1, seed=s) for s in (0, 1)}


@pytest.fixture(scope="module")
def images():
    return torch.rand(62, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_values_and_errors_are_those_of_compare(networks, images):
    found = comparing.compare_networks(networks, images, {}, batch_size=20, device="cpu")
    # The last batch, of two images, is left out.
    own = compare(networks, data=images[:60], layers=comparing.is_paper_layer, batch_size=20)
    assert found.layers == own.layers
    assert found.replicates.shape == (3, *own.value.shape)
    np.testing.assert_allclose(found.value, own.value, atol=1e-6)
    errors = comparing.indices.jackknife_errors(found.replicates)
    np.testing.assert_allclose(errors, own.standard_error, atol=1e-5)


def test_replicates_are_comparisons_without_a_batch(networks, images):
    found = comparing.compare_networks(networks, images, {}, batch_size=20, device="cpu")
    rest = torch.cat([images[:20], images[40:60]])
    without = compare(networks, data=rest, layers=comparing.is_paper_layer, batch_size=20)
    np.testing.assert_allclose(found.replicates[1], without.value, atol=1e-6)


def test_other_images_are_those_of_the_same_positions(networks, images):
    views = {"benign": networks["0"], "moved": networks["0"]}
    moved = (images + 0.1 * torch.rand_like(images)).clamp(0, 1)
    both = comparing.compare_networks(views, images, {"moved": moved}, batch_size=20, device="cpu")
    alone = comparing.compare_networks(
        {"moved": networks["0"]}, moved, {}, batch_size=20, device="cpu"
    )
    layers = len(alone.value)
    np.testing.assert_allclose(both.value[layers:, layers:], alone.value, atol=1e-5)
    np.testing.assert_allclose(both.replicates[:, layers:, layers:], alone.replicates, atol=1e-5)
    assert (both.value[:layers, layers:].diagonal() < 1).all()


def test_a_comparison_survives_its_file(networks, images, tmp_path):
    found = comparing.compare_networks(networks, images, {}, batch_size=20, device="cpu")
    found.save(tmp_path / "new" / "x.safetensors")
    held = comparing.Comparison.load(tmp_path / "new" / "x.safetensors")
    assert (held.views, held.layers) == (found.views, found.layers)
    np.testing.assert_allclose(held.replicates, found.replicates, atol=1e-6)
    assert not list(tmp_path.rglob("*.part"))


def test_a_constant_layer_is_unknown_everywhere(networks, images):
    grams = [torch.rand(20, 5), torch.ones(20, 3)]
    batched = comparing.BatchedCKA()
    for _ in range(2):
        batched.add([comparing.centered_gram(x, packed=True) for x in grams], 20)
    assert np.isnan(batched.value()[1]).all()
    assert np.isnan(batched.without_each()[:, :, 1]).all()
    assert batched.value()[0, 0] == pytest.approx(1)
