"""Networks that normalise their images themselves, so that these may stay in [0, 1]."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.model_state import check_hookable, unwrap


def normalized(
    model: nn.Module, mean: float | Sequence[float] | Tensor, std: float | Sequence[float] | Tensor
) -> nn.Module:
    """The same network, run on (x - mean) / std: it takes images in [0, 1].

    For networks that were trained on normalised images: attacks then search in [0, 1], eps keeps
    its units, and networks with other normalisations can be compared on the same images. Layers
    keep their names.

    Args:
        model: Comes back as it was; the result shares its weights and layers.
        mean: Of each channel, of images in [0, 1].
        std: Of each channel, above 0.

    Returns:
        A network of a subclass of the model's class.

    Raises:
        ValueError: Numbers out of range, or of different lengths.
        TypeError: No module, or one whose layers do not run in Python.

    Example:
        >>> import torch
        >>> from repsim_fast import models
        >>> net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 1))
        >>> takes_images = models.normalized(net, (0.5, 0.4, 0.3), 0.2)
        >>> x = torch.rand(1, 3, 4, 4)
        >>> by_hand = net((x - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)) / 0.2)
        >>> bool(torch.allclose(takes_images(x), by_hand))
        True
    """
    inner = unwrap(check_hookable(model))
    shift, scale = _channels("mean", mean), _channels("std", std)
    if len(shift) != len(scale) and 1 not in (len(shift), len(scale)):
        raise ValueError(f"std must have {len(shift)} numbers as mean has, got {len(scale)}")
    if min(scale) <= 0:
        raise ValueError(f"std must be above 0, got {min(scale)}")
    if max(map(abs, (*shift, *scale))) > _LARGEST:
        raise ValueError(
            "mean and std must be those of images in [0, 1], got numbers up to "
            f"{max(*shift, *scale):g}: divide those of 0..255 by 255"
        )
    own = copy.copy(inner)
    # Hooks, buffers and children are in dictionaries, which the copy would share.
    own.__dict__ = {k: copy.copy(v) if isinstance(v, dict) else v for k, v in vars(inner).items()}
    new_mean, new_std = (torch.tensor(values).view(-1, 1, 1) for values in (shift, scale))
    kind: Any = type(inner)
    if "forward" in vars(kind) and kind.__module__ == __name__:  # both normalisations in one
        before: Any = inner
        new_mean = new_mean + new_std * before._normalized_mean.cpu()
        new_std = new_std * before._normalized_std.cpu()
    else:
        own.__class__ = _normalizing(kind)
    like = next((p for p in inner.parameters() if p.is_floating_point()), new_mean)
    own.register_buffer("_normalized_mean", new_mean.to(like), persistent=False)
    own.register_buffer("_normalized_std", new_std.to(like), persistent=False)
    return own


def normalizations(model: nn.Module) -> dict[str, dict[str, list[float]]]:
    """Mean and std of each part of a model that `normalized` made, by its name, "" the whole."""
    return {
        name: {"mean": own["_normalized_mean"].flatten().tolist(),
               "std": own["_normalized_std"].flatten().tolist()}
        for name, part in unwrap(model).named_modules()
        if "_normalized_mean" in (own := dict(part.named_buffers(recurse=False)))
    }  # fmt: skip


# Beyond it numbers cannot be those of images in [0, 1]; some divide by 1/255, none by more.
_LARGEST = 2.0


def _channels(argument: str, values: Any) -> list[float]:
    try:
        numbers = torch.as_tensor(values, dtype=torch.float64).flatten().tolist()
    except (TypeError, ValueError, RuntimeError):
        numbers = []
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ValueError(f"{argument} must be one number a channel, got {values!r}")
    return [float(number) for number in numbers]


@functools.cache
def _normalizing(kind: Any) -> Any:
    """A subclass whose forward pass normalises the first input before all else."""
    forward = kind.forward

    @functools.wraps(forward)
    def normalizing(self: Any, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        x = (x - self._normalized_mean) / self._normalized_std
        return forward(self, x, *args, **kwargs)

    # As of this module, where the capture of layers knows that samples stay in rows.
    return type(kind.__name__, (kind,), {"forward": normalizing, "__module__": __name__})
