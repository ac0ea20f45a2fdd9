"""Which layers are pruned: linear and convolutional ones, also transposed, with a weight of their
own."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy
from torch.nn.utils import parametrize

from repsim_fast._core.model_state import unwrap

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
LINEAR_MAPS = (*CONVOLUTIONS, *TRANSPOSED, nn.Linear)


def linear_maps(model: nn.Module) -> dict[str, nn.Module]:
    """The model's linear and convolutional layers by name.

    Raises:
        TypeError: No module.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    modules = unwrap(model).named_modules()
    return {name: module for name, module in modules if isinstance(module, LINEAR_MAPS)}


def chosen(
    model: nn.Module,
    layers: Collection[str] | None,
    kinds: tuple[type[nn.Module], ...] = LINEAR_MAPS,
) -> dict[str, nn.Module]:
    """The layers to prune by name; by default all of the kinds.

    Raises:
        TypeError: No module, or ``layers`` is one text or a mapping.
        ValueError: No such layer, or none at all.
    """
    there = {name: m for name, m in linear_maps(model).items() if isinstance(m, kinds)}
    if isinstance(layers, str):
        raise TypeError(f"layers: expected a collection of names, got the text {layers!r}")
    if isinstance(layers, Mapping):  # of sparsities, say, of which none would be read
        raise TypeError(
            "layers: expected a collection of names, got a mapping; layers of different "
            "sparsities are pruned one call after the other"
        )
    wanted = list(there if layers is None else layers)
    if unknown := [name for name in wanted if name not in there]:
        raise ValueError(
            f"layers: expected names of {_names(kinds)} layers ({', '.join(there) or 'none'}), "
            f"got {unknown[0]!r}"
        )
    if there and not wanted:
        raise ValueError(f"layers: expected names of {_names(kinds)} layers, got none")
    picked = {name: m for name, m in there.items() if name in wanted}
    if not picked:
        raise ValueError(f"model: expected a {_names(kinds)} layer to prune, got none")
    return picked


def check_maskable(model: nn.Module, layers: dict[str, nn.Module]) -> None:
    """Raises ValueError unless each layer alone holds its weight, as an ordinary real parameter."""
    holders: dict[int, list[str]] = {}
    for name, parameter in unwrap(model).named_parameters(remove_duplicate=False):
        holders.setdefault(id(parameter), []).append(name)
    owners = dict(unwrap(model).named_modules(remove_duplicate=False))
    for name, layer in layers.items():
        if parametrize.is_parametrized(layer, "weight"):
            raise ValueError(
                f"model: the weight of {name!r} has a parametrization already; expected none"
            )
        check_values(name, layer)
        weight = weight_of(layer)
        if id(weight) not in holders:  # made of others by a hook, which would overwrite a mask
            raise ValueError(
                f"model: expected the weight of {name!r} to be a parameter, got one that a hook "
                "makes, as torch.nn.utils.weight_norm, spectral_norm and prune do: remove it first"
            )
        if not weight.is_floating_point():
            raise ValueError(
                f"model: expected a real floating-point weight in {name!r}, got {weight.dtype}"
            )
        # One layer under two names still has one weight.
        holding = {id(owners[held.rpartition(".")[0]]): held for held in holders[id(weight)]}
        if len(holding) > 1:
            raise ValueError(
                f"model: {' and '.join(holding.values())} are one weight, which a mask would part"
            )
        if not bool(torch.isfinite(weight).all()):
            raise ValueError(f"model: expected finite weights, got NaN or Inf in {name!r}")


def check_values(name: str, layer: nn.Module) -> None:
    """Raises ValueError where a layer's weight has no values yet."""
    if is_lazy(weight_of(layer)):
        raise ValueError(f"model: {name!r} has no weight yet: run the model once first")
    if weight_of(layer).is_meta:
        raise ValueError(f"model: {name!r} is on the meta device, without values: load them first")


def weight_of(layer: nn.Module) -> Tensor:
    """The weight that a layer computes with."""
    return cast(Tensor, layer.weight)


def _names(kinds: tuple[type[nn.Module], ...]) -> str:
    return "linear or convolutional" if nn.Linear in kinds else "convolutional"
