"""Which tokens of a batch are real, and which only pad sentences to one length."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from repsim_fast._core.cached import cached

OneMask: TypeAlias = "str | Callable[[Any], Tensor | None] | None"
"""Key of the mask among a model's inputs, or a callable inputs -> mask; None: attention_mask."""

MaskSpec: TypeAlias = "OneMask | Mapping[str, OneMask]"
"""Of all layers, or by names and patterns of layers; there None says that no token is padding."""

DEFAULT = "attention_mask"

_SAYS_MASK = re.compile("mask|padding|length", re.IGNORECASE)


class TokenMask:
    """Which of T tokens of each of N samples are real.

    Attributes:
        tokens: (N, T) bool.
        name: What the mask is called in messages.
    """

    def __init__(self, tokens: Tensor, name: str) -> None:
        self.tokens = tokens
        self.name = name

    @cached
    def counts(self) -> Tensor:
        """(N,) real tokens of each sample."""
        return self.tokens.sum(1)

    @cached
    def padded(self) -> bool:
        """Whether any token is none."""
        return not bool(self.tokens.all())

    @cached
    def first(self) -> Tensor:
        """(N,) position of the first real token of each sample."""
        return self.tokens.int().argmax(1)

    @cached
    def last(self) -> Tensor:
        """(N,) position of the last real token of each sample."""
        return self.tokens.shape[1] - 1 - self.tokens.int().flip(1).argmax(1)

    def on(self, device: torch.device) -> TokenMask:
        """The mask on a device."""
        if self.tokens.device == device:
            return self
        return TokenMask(self.tokens.to(device), self.name)

    @cached
    def empty(self) -> int | None:
        """Number of the first sample without a real token, if there is one."""
        none = self.counts == 0
        return int(none.int().argmax()) if bool(none.any()) else None

    def check_every_sample(self) -> None:
        """Raises ValueError where a sample has no real token."""
        if self.empty is not None:
            raise ValueError(
                f"mask: sample {self.empty} of a batch has no real token in {self.name}"
            )


def find_mask(inputs: Any, spec: OneMask) -> TokenMask | None:
    """The mask of a batch, or None where it has none.

    Args:
        inputs: What the model was called with: a tensor, or a tuple or mapping of inputs.
        spec: As ``mask`` of ``Capture``, of all layers.

    Raises:
        ValueError: No mask under the name that was given, or one of another shape than (N, T).
        TypeError: Something else than a tensor.
    """
    name = spec if isinstance(spec, str) else DEFAULT if spec is None else "mask="
    if callable(spec):
        mask = spec(inputs)
    elif isinstance(inputs, Mapping):
        mask = inputs.get(name)
    else:
        mask = None
    if mask is None:
        if isinstance(spec, str):
            there = list(inputs) if isinstance(inputs, Mapping) else type(inputs).__name__
            raise ValueError(f"mask: the model's inputs have no {spec!r}; they are {there}")
        return None
    if not isinstance(mask, Tensor):
        ragged = isinstance(mask, list) and all(isinstance(row, (list, Tensor)) for row in mask)
        raise TypeError(
            f"mask: expected a tensor (N, T), got {type(mask).__name__}"
            + (" of rows, of different lengths: pad them (tokenizer(..., padding=True))" * ragged)
        )
    if mask.ndim != 2:
        raise ValueError(
            f"mask: expected {name} to have shape (N, T), got {tuple(mask.shape)}; give "
            "mask=callable, inputs -> (N, T) or None for no padding"
        )
    if not bool(((mask == 0) | (mask == 1)).all()):
        low, high = (value.item() for value in mask.aminmax())
        raise ValueError(
            f"mask: expected {name} to be 1 for real tokens and 0 for padding, got values in "
            f"[{low:g}, {high:g}]; of one that is added to scores give mask=callable, inputs -> "
            "(N, T) that says which tokens are real"
        )
    return TokenMask(mask != 0, name)


def mask_like(inputs: Any) -> list[str]:
    """Names among a model's inputs that say mask, padding or lengths, also in mappings inside.

    Args:
        inputs: As for :func:`find_mask`.
    """
    if not isinstance(inputs, Mapping):
        return []
    found = []
    for name, value in inputs.items():
        if isinstance(value, Mapping):
            found += [f"{name}.{inner}" for inner in mask_like(value)]
        elif isinstance(value, Tensor) and 1 <= value.ndim <= 2 and _SAYS_MASK.search(str(name)):
            found.append(str(name))
    return found


def inputs_of_call(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """What a model was called with: one tensor as it is, named inputs as a mapping."""
    if not kwargs:
        return args[0] if len(args) == 1 else _named(model, args, {}) or args
    return _named(model, args, kwargs) or dict(kwargs)


def _named(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Arguments by the names that the model's ``forward`` gives them, if it tells."""
    if not args:
        return dict(kwargs)
    try:
        bound = inspect.signature(model.forward).bind(*args, **kwargs)
    except (TypeError, ValueError):
        return None
    return {**bound.arguments, **kwargs}
