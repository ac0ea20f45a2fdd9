"""Learned scores: where they begin, how they move, what is left."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from repsim_fast import pruning
from repsim_fast.pruning.learned import LearnedMask
from repsim_fast.training import train


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def test_scores_begin_scaled_and_keep_the_largest_weights() -> None:
    model, other = network(), network()
    pruning.prune(other, 0.5)
    weight = model[0].weight.detach().clone()
    with pruning.learned_scores(model, 0.5):
        scores = model[0].parametrizations.weight[0].scores
        torch.testing.assert_close(scores, math.sqrt(6 / 9) * weight / weight.abs().max())
        assert torch.equal(model[0].weight, other[0].weight)
    assert torch.equal(model[3].weight, other[3].weight)


def test_gradients_pass_to_the_scores_of_all_weights() -> None:
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0]])
    mask = LearnedMask(torch.tensor([[0.3, -0.4, 0.1, -0.2]]), kept=2)
    masked = mask(weight)
    assert masked.tolist() == [[1, -2, 0, 0]]
    masked.backward(torch.tensor([[1.0, 10.0, 100.0, 1000.0]]))
    assert mask.scores.grad is not None
    # of |s|: gradient times weight; the sign of s beside it
    assert mask.scores.grad.tolist() == [[1, 20, 300, 4000]]


def test_training_moves_the_scores_and_norms_alone() -> None:
    torch.manual_seed(1)
    model = network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    required = [p.requires_grad for p in model.parameters()]
    images = (torch.rand(32, 1, 4, 4), torch.arange(32) % 3)
    with pruning.learned_scores(model, 0.75):
        first = model[3].parametrizations.weight[0].mask()
        train(model, images, epochs=4, batch_size=8, lr=0.5, progress=False)
        learned = model[3].parametrizations.weight[0].mask()
        inside = pruning.apply(model)
    assert not torch.equal(first, learned)
    weight = model[3].weight
    assert torch.equal(weight, torch.where(learned, before["3.weight"], 0.0))
    assert int(weight.count_nonzero()) == 12
    after = pruning.apply(model)
    assert torch.equal(after["3.bias"], before["3.bias"])
    assert not torch.equal(after["1.weight"], before["1.weight"])
    assert inside.keys() == after.keys() == before.keys()
    assert all(torch.equal(inside[name], after[name]) for name in after)
    assert [p.requires_grad for p in model.parameters()] == required


def test_an_exception_leaves_the_dense_model() -> None:
    model = network()
    model[3].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyboardInterrupt), pruning.learned_scores(model, 0.5):
        raise KeyboardInterrupt
    state = model.state_dict()
    assert state.keys() == before.keys()
    assert all(torch.equal(state[name], before[name]) for name in before)
    held = {name: p.requires_grad for name, p in model.named_parameters()}
    assert held == {name: name != "3.bias" for name in held}
    assert type(model[0]) is nn.Conv2d


def test_a_copy_made_inside_is_usable_afterwards() -> None:
    model, x = network().eval(), torch.rand(2, 1, 4, 4)
    with pruning.learned_scores(model, 0.5):
        kept = copy.deepcopy(model)
        want = model(x)
    assert torch.equal(kept(x), want)
    assert torch.equal(model(x), want)


def test_a_bias_keeps_its_own_parametrisation() -> None:
    model = network()
    nn.utils.parametrizations.weight_norm(model[3], "bias")
    with pruning.learned_scores(model, 0.5):
        pass
    assert nn.utils.parametrize.is_parametrized(model[3], "bias")
    assert pruning.report(model).sparsity == 0.5


def test_a_layer_without_weights_has_no_scores() -> None:
    model = network()
    nn.init.zeros_(model[3].weight)
    with (
        pytest.raises(ValueError, match="other than 0 in layer '3'"),
        pruning.learned_scores(model, 0.5),
    ):
        pass
    assert type(model[0]) is nn.Conv2d
