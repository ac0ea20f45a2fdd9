"""A model run on what data give: a tensor, a tuple of arguments, or a mapping of them by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .nested import tensors_in

LABEL_NAMES = ("labels", "label", "y", "targets", "target")
"""Under which a mapping of tensors has labels."""


def run(model: nn.Module, batch: Any) -> Any:
    """Forward pass on a tensor, a tuple of positional or a mapping of keyword arguments.

    Of a mapping, what is about its samples and no argument of the model is left out, see
    :func:`arguments`.
    """
    batch = arguments(model, batch)
    if isinstance(batch, Tensor):
        return model(batch)
    return model(**batch) if hasattr(batch, "keys") else model(*batch)


def arguments(model: nn.Module, x: Any) -> Any:
    """Inputs by the names of a model's arguments, as far as it has them.

    Labels, texts and numbers of samples that it does not have are left out. Where it has none of
    the names, as a network of images whose batches say "image", the one input that is left is its
    first argument, or of a network with a single argument the one that has images (N, C, H, W).
    Anything else is the model's own to refuse.
    """
    if not isinstance(x, Mapping):
        return x
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return x
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return x
    known = {
        one.name for one in parameters if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)
    }
    kept = {name: value for name, value in x.items() if name in known or not _is_extra(name, value)}
    if len(kept) > 1 and len(known) == 1 and not kept.keys() & known:
        images = {k: v for k, v in kept.items() if isinstance(v, Tensor) and v.ndim == 4}
        kept = images if len(images) == 1 else kept
    if len(kept) != 1 or kept.keys() & known:
        return kept or x
    (inner,) = kept.values()
    if isinstance(inner, Mapping):
        return arguments(model, inner)
    return inner if isinstance(inner, (Tensor, tuple)) else (inner,)


def _is_extra(name: str, value: Any) -> bool:
    """Whether an entry of a batch is about its samples, rather than an input."""
    return name in LABEL_NAMES or all(tensor.ndim < 2 for tensor in tensors_in(value))
