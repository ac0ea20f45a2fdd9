"""Models and random states come back as they were, whatever happens inside."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager

import pytest
import torch
from torch import nn

from repsim_fast._core.buffers import buffers_kept
from repsim_fast._core.model_state import (
    evaluating,
    gradients_set_aside,
    in_mode,
    parameters_frozen,
)
from repsim_fast._core.randomness import private_rng


def network() -> nn.Module:
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.BatchNorm1d(4))
    model[3].eval()
    model[0].bias.requires_grad_(False)
    model[0].weight.grad = torch.ones(4, 3)
    model[1].register_buffer("absent", None)
    return model


def state(model: nn.Module) -> list[object]:
    tensors = [*model.parameters(), *model.buffers()]
    return [
        [module.training for module in model.modules()],
        [(id(t), t.requires_grad, t.tolist(), str(t.grad)) for t in tensors],
        list(model[1]._buffers),
        torch.get_rng_state().tolist(),
    ]


def spoil(model: nn.Module) -> None:
    """What a forward pass, or code called in it, may do."""
    for module in model.modules():
        module.train(not module.training)
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.add_(1)
    model[1].running_mean = torch.full((4,), 9.0)
    model[1].absent = torch.ones(2)


KEEPERS: list[Callable[[nn.Module], AbstractContextManager[None]]] = [
    lambda model: in_mode([model], "train"),
    lambda model: evaluating([model]),
    lambda model: in_mode([model], "keep"),
    lambda model: buffers_kept([model]),
    lambda model: parameters_frozen([model]),
    lambda model: gradients_set_aside([model]),
    lambda model: private_rng(torch.device("cpu"), 5),
]


@pytest.mark.parametrize("fails", [False, True])
def test_nothing_of_all_is_changed(fails: bool) -> None:
    model = network()
    before = state(model)
    expected = pytest.raises(KeyError) if fails else contextlib.nullcontext()
    with expected, contextlib.ExitStack() as stack:
        for keeper in KEEPERS:
            stack.enter_context(keeper(model))
        spoil(model)
        torch.rand(3)
        if fails:
            raise KeyError("inside")
    assert state(model) == before


@pytest.mark.parametrize(
    ("mode", "flags"),
    [("eval", [False] * 5), ("train", [True] * 5), ("keep", [True, True, True, True, False])],
)
def test_modes_inside(mode: str, flags: list[bool]) -> None:
    model = network()
    with in_mode([model], mode):  # type: ignore[arg-type]
        assert [module.training for module in model.modules()] == flags


def test_buffers_made_in_inference_mode_are_restored() -> None:
    with torch.inference_mode():
        model = nn.BatchNorm1d(2)
    with buffers_kept([model]), torch.inference_mode():
        model.running_mean.add_(1)
    assert model.running_mean.tolist() == [0.0, 0.0]


def test_buffers_without_a_value_yet_are_left_alone() -> None:
    model = nn.LazyBatchNorm1d()
    with buffers_kept([model]):
        model(torch.randn(4, 3))
    assert model.running_mean.shape == (3,)


def test_no_parameter_requires_a_gradient_inside() -> None:
    model = network()
    with parameters_frozen([model]):
        assert not any(p.requires_grad for p in model.parameters())


def test_the_private_stream_depends_on_its_seed_alone() -> None:
    drawn = []
    for before in (1, 2):
        torch.manual_seed(before)
        with private_rng([torch.device("cpu")], 7):
            drawn.append(torch.rand(4).tolist())
    assert drawn[0] == drawn[1]
