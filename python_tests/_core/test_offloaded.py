"""Weights on the meta device, as offloading libraries leave them; hooks bring them for a call."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from repsim_fast import compare
from repsim_fast._core.model_state import device_of


def offloaded(model: nn.Module) -> nn.Module:
    """The model with its weights on the meta device, but for the time that a layer needs them."""
    for layer in [m for m in model.modules() if isinstance(m, nn.Linear)]:
        kept = {name: weight.detach() for name, weight in layer.named_parameters()}

        def bring(layer: nn.Module, args: Any, kept: dict[str, Tensor] = kept) -> None:
            for name, weight in kept.items():
                layer._parameters[name] = nn.Parameter(weight)

        def take(layer: nn.Module, args: Any, output: Any) -> None:
            layer.to("meta")

        layer.register_forward_pre_hook(bring)
        layer.register_forward_hook(take)
    return model.to("meta")


def network() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 4))


def test_inputs_stay_where_they_have_values() -> None:
    assert device_of(network().to("meta")).type == "cpu"
    assert device_of(nn.Sequential(network().to("meta"), nn.Linear(2, 2))).type == "cpu"


def test_comparison_is_that_of_the_weights_in_place() -> None:
    model = network()
    x = torch.randn(64, 6)
    held = compare(model, x, seed=0).value
    away = compare(offloaded(copy.deepcopy(model)), x, seed=0).value
    assert (held == away).all()


def test_offloaded_models_are_not_moved() -> None:
    with pytest.raises(ValueError, match=r"device='cpu' cannot hold Sequential.*'meta'"):
        compare(offloaded(network()), torch.randn(64, 6), device="cpu")
