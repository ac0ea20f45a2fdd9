"""Arithmetic in the precision of the arguments, whatever context a function is called in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch


@contextmanager
def full_precision() -> Iterator[None]:
    """Turns autocast off, which would take products of float32 features in 16 bits in silence.

    A context, and a decorator: ``@full_precision()``.
    """
    with ExitStack() as stack:
        for device in ("cpu", "cuda"):
            if torch.is_autocast_enabled(device):
                stack.enter_context(torch.autocast(device, enabled=False))
        yield
