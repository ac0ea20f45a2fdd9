"""The operations that a model runs, as a sign of the way through its code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from .borrow import call
from .buffers import buffers_kept
from .in_place import different
from .model_state import ModelMode, in_mode
from .randomness import private_rng

_MODES: tuple[ModelMode, ...] = ("eval", "train")


def same_path(model: nn.Module, images: Tensor) -> bool:
    """Whether a model runs the same operations on N images as on two, in eval and training mode.

    A forward pass of each: what holds on two images then holds on N, whose gradients take ten
    times as long to look at.

    Args:
        images: Like those to come, (N, ...).
    """
    try:
        return all(
            _path(model, images, 2, mode) == _path(model, images, len(images), mode)
            for mode in _MODES
        )
    except Exception:  # of the model's own code, which whoever runs it will meet
        return False


def _path(model: nn.Module, images: Tensor, n: int, mode: ModelMode) -> list[str]:
    torch.clear_autocast_cache()  # with which weights are cast the first time alone
    with (
        torch.no_grad(),
        private_rng(images.device, 0),
        buffers_kept([model]),
        in_mode([model], mode),
        _Operations() as seen,
    ):
        call(model, different(images, n))
    names: list[str] = seen.names
    return names


class _Operations(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Names of the operations that run within."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))
