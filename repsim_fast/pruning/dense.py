"""A pruned model's weights as those of the model that it was made of."""

from __future__ import annotations

from torch import Tensor, nn

from repsim_fast._core.model_state import unwrap

from .layers import weight_of
from .learned import is_masked

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
