"""What a view of a network looks like, before and after its training."""

import dataclasses

import pytest
import torch
from torch import nn

from experiments.lab.lab import View
from python_tests.support import toy_experiment as toy


def spreads(network, images):
    """Standard deviation over images of what each batch norm gives, a mean over channels."""
    found = []
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_hook(
                lambda _, __, x: found.append(float(x.std((0, 2, 3)).mean()))
            )
    with torch.no_grad():
        network(images)
    return found


def test_an_untrained_network_normalises_by_statistics_of_training_images(tmp_path):
    lab = toy.ToyLab(toy.PRESET, tmp_path / "work", progress=False)
    recipe = dataclasses.replace(lab.recipe(), keep=(0,))
    images, _ = lab.train_data.tensors()
    untrained = lab.model(View("before", recipe, epoch=0))
    assert not untrained.training
    assert spreads(untrained, images) == pytest.approx([1.0] * 7, abs=0.1)
    # The known fault: what it normalised by was of no data.
    assert min(spreads(lab.networks.load(recipe, 0), images)) < 0.5
    trained = lab.model(View("after", recipe))
    same = lab.networks.load(recipe).state_dict()
    assert all(torch.equal(value, same[name]) for name, value in trained.state_dict().items())
