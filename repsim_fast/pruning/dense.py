"""A pruned model's weights as those of the model that it was made of."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from repsim_fast._core.model_state import unwrap

from .layers import weight_of
from .learned import is_masked
from .mask import take_off

_UNDERNEATH = "parametrizations.weight."


def apply(model: nn.Module) -> dict[str, Tensor]:
    """An ordinary state dict, pruned weights 0 in it, which the unpruned architecture loads.

    Args:
        model: Pruned, or being so in ``learned_scores``; one without masks has its own state dict.

    Returns:
        Copies of all weights and buffers by name, without masks.

    Raises:
        TypeError: No module.

    Example:
        >>> import torch
        >>> from repsim_fast import pruning
        >>> layer = torch.nn.Linear(4, 2)
        >>> pruning.prune(layer, 0.5)
        >>> torch.nn.Linear(4, 2).load_state_dict(pruning.apply(layer))
        <All keys matched successfully>
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    state: dict[str, Tensor] = {
        name: value.detach().clone() for name, value in unwrap(model).state_dict().items()
    }
    for name, module in unwrap(model).named_modules(remove_duplicate=False):
        if is_masked(module):
            prefix = f"{name}." if name else ""
            for inner in [key for key in state if key.startswith(f"{prefix}{_UNDERNEATH}")]:
                del state[inner]
            state[f"{prefix}weight"] = weight_of(module).detach().clone()
    return state


def unmasked(model: nn.Module) -> nn.Module:
    """A copy without masks, pruned weights 0 in it; the model itself where there are none.

    Raises:
        ValueError: A masked layer with another parametrised tensor.
    """
    inner = unwrap(model)
    if not any(is_masked(module) for module in inner.modules()):
        return inner
    dense = copy.deepcopy(inner)
    for name, module in list(dense.named_modules()):
        if not is_masked(module):
            continue
        if parametrize.is_parametrized(module, "bias"):
            raise ValueError(f"model: layer {name!r} has parametrisations beside its mask")
        take_off(module, nn.Parameter(weight_of(module).detach().clone()))
    return dense


@torch.no_grad()
def put(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Copy a dense state dict into a pruned model, whose masks stay and hold."""
    inner = unwrap(model)
    own = inner.state_dict()
    modules = inner.named_modules(remove_duplicate=False)
    masked = {name for name, module in modules if is_masked(module)}
    for key, value in state.items():
        name = key.rpartition(".")[0]
        if key.endswith("weight") and name in masked:
            layer = inner.get_submodule(name)
            own[f"{key[: -len('weight')]}{_UNDERNEATH}original"].copy_(value)
            own[f"{key[: -len('weight')]}{_UNDERNEATH}original"].copy_(weight_of(layer))
        else:
            own[key].copy_(value)
