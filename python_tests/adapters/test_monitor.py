"""A network in training compared with a reference, in a loop of one's own."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import nn

from repsim_fast import SimilarityResult, compare
from repsim_fast.adapters import Monitor


def _network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 3))


def test_compares_every_so_many_steps_and_leaves_the_model_alone() -> None:
    model, images = _network(), torch.rand(60, 6)
    before = copy.deepcopy(model)
    results: dict[int, SimilarityResult] = {}
    monitor = Monitor(
        before,
        [images[:30], images[30:]],
        every=2,
        on_result=lambda result, step: results.update({step: result}),
        layers=["0", "3"],
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    given = []
    for step in range(1, 6):
        model.train()
        optimizer.zero_grad()
        model(images).square().mean().backward()
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        optimizer.step()
        given.append(monitor.step(model, step))
        assert monitor.step(model, step) is None  # done already
        assert model.training
        assert model[2].training
        after = [p.grad for p in model.parameters() if p.grad is not None]
        assert all(torch.equal(a, b) for a, b in zip(gradients, after, strict=True))
    assert [figures is not None for figures in given] == [False, True, False, True, False]
    assert list(results) == list(monitor.figures) == [2, 4]
    alone = compare(before, copy.deepcopy(model), images, layers=["0", "3"])
    assert alone.models == ("Sequential 1", "Sequential 2")
    found = results[4].between("reference", "model")
    assert monitor.figures[4]["cka/layer/0"] == pytest.approx(found.value[0, 0])
    assert monitor.figures[4]["cka/layer/3"] == pytest.approx(found.value[1, 1])
    same = monitor.figures[4]["cka/mean_same_layer"]
    assert same == pytest.approx(found.value.diagonal().mean())


def test_another_run_is_compared_anew() -> None:
    """One monitor of several trainings, as of the folds of a cross-validation."""
    monitor = Monitor(_network(), torch.rand(20, 6), every=2, layers=["0"])
    other = nn.Sequential(nn.Linear(6, 5), nn.ReLU())
    first = [monitor.step(_network(), step) for step in (1, 2, 2, 3)]
    second = [monitor.step(other, step) for step in (1, 2, 2, 3)]
    for given in (first, second):
        assert [figures is not None for figures in given] == [False, True, False, False]
    assert first[1] != second[1]
    assert monitor.figures == {2: second[1]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"every": 0}, "every: expected a positive"),
        ({"names": ["a", "b"]}, "names: is the monitor's own"),
        ({"data": iter([])}, "data: expected data that can be read again"),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Monitor(**{"reference": _network(), "data": torch.rand(20, 6), **arguments})
