"""Means over positions, where they are more than rounding.

An instance normalisation gives each map of each sample the same mean, that of its shift. What
rounding leaves beside it is as large as features are that a shift of zero leaves, so that no
measure could tell it from features that vary: such means are made equal for all samples, which
measures know as constant.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repsim_fast.capture.features import Channels, pool

# Units of rounding of the mean size of what is averaged, within which means are equal.
_ULPS = 8

# What rounding may make of an instance normalisation's means, in their mean size: it grows with
# the mean of what is normalised over its deviation. More than this is another layer's doing.
_ROUNDING_OF_NORMS = 2.0**-6


class Means:
    """Means over positions of a model's layers, batch by batch.

    Attributes:
        constant: Layers that have no others than these so far, (C,).
    """

    def __init__(self) -> None:
        self.constant: dict[str, Tensor] = {}
        self._first: dict[str, Tensor] = {}  # of layers without varying ones so far, (C,)
        self._varying: set[str] = set()

    def of(self, name: str, module: nn.Module | None, x: Tensor, channels: Channels) -> Tensor:
        """(N, C, ...) or (N, ..., C) to (N, C).

        Layers are looked at until their means vary, which takes as long again.

        Args:
            name: Of the layer, with the number of the call.
            module: The layer, where it is known.
            x: What it returned.
            channels: Where it has its channels.
        """
        means = pool(x, channels)
        if x.ndim <= 2 or not len(x) or name in self._varying:
            return means
        sizes = pool(x.abs(), channels)
        shift = None if channels == "last" else _shift(module, means)
        if shift is not None:
            row, rounding = shift, sizes * _ROUNDING_OF_NORMS
        else:
            rounding = sizes * (_ULPS * torch.finfo(means.dtype).eps)
            # What is nothing but rounding itself is zero, so that no sample decides what it is.
            means = torch.where(means.abs() <= rounding, 0.0, means)
            row = self._first.setdefault(name, means[0].detach().clone())
        equal = ((means - row).abs() <= rounding).all()
        if not (means.is_cuda and torch.cuda.is_current_stream_capturing()):
            self._note(name, means, row, bool(equal))
        return torch.where(equal, row.expand_as(means), means)

    def _note(self, name: str, means: Tensor, row: Tensor, equal: bool) -> None:
        if not equal:
            self.constant.pop(name, None)
            self._varying.add(name)
        elif bool((means != row).any()):
            self.constant[name] = row


def means(x: Tensor, channels: Channels) -> Tensor:
    """Means over positions of all samples at once, (N, C, ...) or (N, ..., C) to (N, C)."""
    return Means().of("", None, x, channels)


def _shift(
    module: nn.Module | None,
    means: Tensor,  # (N, C)
) -> Tensor | None:
    """Means (C,) that a layer gives each map of each sample; None if they depend on the maps."""
    norm = nn.modules.instancenorm._InstanceNorm
    # Subclasses that do more have a forward of their own.
    if isinstance(module, norm) and type(module).forward is norm.forward:
        if module.track_running_stats and not module.training:
            return None
    elif not (
        isinstance(module, nn.GroupNorm)
        and type(module).forward is nn.GroupNorm.forward
        and module.num_groups == module.num_channels
    ):
        return None
    shift = module.bias if isinstance(module.bias, Tensor) else means.new_zeros(means.shape[1])
    return shift.detach().to(means) if shift.shape == means.shape[1:] else None
