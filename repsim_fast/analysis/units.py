"""The units of layers as a model runs: one number a sample and channel, layer by layer."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.model_state import device_of
from repsim_fast._core.nested import to_device
from repsim_fast.capture import Capture, LayerSpec, Maps
from repsim_fast.capture.capture import untouched
from repsim_fast.data.batches import open_data

__all__ = ["batches", "is_relu", "unit_layers", "watching"]


def is_relu(name: str, module: nn.Module) -> bool:
    """The layers that are taken where none are named."""
    return isinstance(module, nn.ReLU)


def unit_layers(model: nn.Module, layers: LayerSpec) -> LayerSpec:
    """``layers`` as they are, or every ReLU.

    Raises:
        ValueError: None are named and the model has no ReLU module.
    """
    if layers is not None:
        return layers
    if not any(is_relu(name, module) for name, module in model.named_modules()):
        raise ValueError("model has no nn.ReLU module: name layers, such as layers='act*'")
    return is_relu


@contextlib.contextmanager
def watching(
    model: nn.Module,
    layers: LayerSpec,
    take: Callable[[str, Tensor], None],
    *,
    maps: Maps = "pool",
    mask: Any = None,
) -> Iterator[None]:
    """The model in eval mode, without gradients; ``take`` gets (name, units) of each layer called.

    It comes back as it was. A module called twice in a pass is ``relu`` and ``relu#2``.
    """
    chosen = unit_layers(model, layers)
    with (
        untouched(model),
        torch.no_grad(),
        Capture(model, chosen, maps=maps, mask=mask, on_activation=take),
    ):
        yield


def batches(
    model: nn.Module, data: Any, *, batch_size: int | None = None
) -> Iterator[tuple[Any, Tensor | None, int]]:
    """(inputs on the model's device, labels or None, samples) of all batches, in the data's order.

    Args:
        data: As for ``compare``.
        batch_size: As there.
    """
    device = device_of(model)
    for batch in open_data(data, batch_size=batch_size, shuffle=False).batches:
        x = to_device(batch.x, device, copy=True)  # the model may change it
        yield x, batch.y if isinstance(batch.y, Tensor) else None, batch.n
