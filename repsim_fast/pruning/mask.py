"""Masks as parametrisations: a masked weight is computed from the one underneath."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize


class Mask(nn.Module):
    """Keeps some entries of a weight, the others are 0.

    Args:
        keep: Of the weight's shape, bool.
    """

    keep: Tensor

    def __init__(self, keep: Tensor) -> None:
        super().__init__()
        self.register_buffer("keep", keep)

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight."""
        return torch.where(self.keep, weight, 0.0)


@torch.inference_mode(False)  # whose tensors no training could use
def put_on(layers: Mapping[str, nn.Module], masks: Iterable[Tensor]) -> None:
    """Mask the layers' weights, which are 0 underneath from then on, too.

    What reads the parameter itself, as weight decay and the norms of weight perturbations do, then
    sees the network that is left.
    """
    for layer, keep in zip(layers.values(), masks, strict=True):
        if (mask := mask_of(layer)) is None:
            parametrize.register_parametrization(layer, "weight", Mask(keep.clone()))
            layer.train(layer.training)  # new parts begin in training mode
        else:
            mask.keep.copy_(keep)
        with torch.no_grad():
            original(layer).masked_fill_(~keep, 0.0)


def take_off(layer: nn.Module, weight: nn.Parameter) -> None:
    """Put ``weight`` in the place of a mask and what it masks, in a layer parametrised so alone.

    Not by remove_parametrizations, which would change the class that copies of the layer share.
    """
    layer.__class__ = parametrize.type_before_parametrizations(layer)
    del layer.parametrizations
    layer.weight = weight


def mask_of(layer: nn.Module) -> Mask | None:
    """The mask of a layer's weight."""
    mask = parametrization_of(layer)
    return mask if isinstance(mask, Mask) else None


def parametrization_of(layer: nn.Module) -> nn.Module | None:
    """What makes a layer's weight of the parameter underneath, if anything does."""
    return _chain(layer)[-1] if parametrize.is_parametrized(layer, "weight") else None


def original(layer: nn.Module) -> nn.Parameter:
    """The parameter underneath a mask."""
    return cast(nn.Parameter, _chain(layer).original)


def check_unmasked(layers: Mapping[str, nn.Module], hint: str = "") -> None:
    """Raises ValueError where one of the layers has a mask."""
    if masked := [name for name, layer in layers.items() if mask_of(layer) is not None]:
        raise ValueError(f"model is pruned already (layer {masked[0]!r}){hint}")


def _chain(layer: nn.Module) -> parametrize.ParametrizationList:
    chains = cast(nn.ModuleDict, layer.parametrizations)
    return cast(parametrize.ParametrizationList, chains["weight"])
