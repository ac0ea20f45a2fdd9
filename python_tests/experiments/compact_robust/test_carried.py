"""What pruned weights carry: closed forms, and changes that go through them or not at all."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from experiments.compact_robust.carried import (
    ATTACK,
    IMAGES,
    energies,
    excess,
    mean_share,
    share_of,
)
from repsim_fast import pruning


def halved():
    """A layer of two inputs, and the same without the weights of the second one."""
    dense = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=False))
    dense[1].weight.data = torch.tensor([[1.0, 2.0], [0.5, -1.0], [2.0, 0.1]])
    pruned = copy.deepcopy(dense)
    pruned[1].weight.data[:, 1] = 0.0
    return dense, pruned


def images(n=20):
    return torch.rand(n, 1, 1, 2, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("direction", "share"), [((0.0, 1.0), 1.0), ((1.0, 0.0), 0.0)])
def test_a_change_along_pruned_or_kept_directions_is_told(direction, share):
    dense, pruned = halved()
    x = images()
    moved = x + 0.1 * torch.tensor(direction)
    found = energies(dense, pruned, x, {ATTACK: moved})
    assert mean_share(found, ATTACK).value == pytest.approx(share, abs=1e-9)
    own = mean_share(found, IMAGES).value
    assert 0 < own < 1
    assert excess(found, ATTACK).value == pytest.approx(share - own)


def test_energies_are_those_of_their_definition():
    dense, pruned = halved()
    x = images()
    flat, weight = x.flatten(1).double(), dense[1].weight.detach().double()
    centred = flat - flat.mean(0)
    gone = (centred[:, 1:] @ weight[:, 1:].T).square().sum()
    left = (centred[:, :1] @ weight[:, :1].T).square().sum()
    found = energies(dense, pruned, x, {}, groups=4)["1"][IMAGES]
    assert np.sum(found[0]) == pytest.approx(float(gone), rel=1e-5)
    assert np.sum(found[1]) == pytest.approx(float(left), rel=1e-5)
    assert [len(parts) for parts in found] == [4, 4]
    some = share_of(found, np.array([0, 2]))
    a, b = (sum(parts[g] for g in (0, 2)) for parts in found)
    assert some == pytest.approx(a / (a + b))


def test_a_strided_convolution_is_applied_as_the_network_does():
    dense = nn.Sequential(nn.Conv2d(2, 4, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(4, 2, 1))
    pruned = copy.deepcopy(dense)
    pruning.prune(pruned, 0.5)
    kept = copy.deepcopy(dense)
    kept.load_state_dict(pruning.apply(pruned))
    x = torch.rand(8, 2, 7, 7, generator=torch.Generator().manual_seed(1))
    moved = x + 0.1
    found = energies(dense, kept, x, {ATTACK: moved}, groups=2)
    assert list(found) == ["0", "2"]
    with torch.no_grad():
        change = (kept[0](moved) - kept[0](x)).double().square().sum()
    assert sum(found["0"][ATTACK][1]) == pytest.approx(float(change), rel=1e-4)
    assert not dense[0]._forward_pre_hooks


def test_errors_are_those_of_groups_of_images():
    dense, pruned = halved()
    x = images()
    same = energies(dense, pruned, x, {ATTACK: x + 0.1}, groups=5)
    # The change is the same for every image: without any of them the share is as it is.
    assert mean_share(same, ATTACK).standard_error == pytest.approx(0.0, abs=1e-7)
    assert mean_share(same, IMAGES).standard_error > 0.001
