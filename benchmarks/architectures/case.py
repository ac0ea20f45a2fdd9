"""An architecture of the table, and the batches that it is compared on."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

SAMPLES, BATCHES = 12, 2
"""In a batch, and how many of them: no size of the small networks is this one."""


@dataclass(frozen=True)
class Case:
    """One row.

    Attributes:
        name: As its library calls it.
        package: Which it is built with; the row says so where that is not installed.
        build: A network with random weights, from its configuration alone.
        batch: Inputs of one batch, from a generator.
        forward: What runs it on a batch, where that is no plain call.
    """

    name: str
    package: str
    build: Callable[[], nn.Module]
    batch: Callable[[torch.Generator], Any]
    forward: Callable[[nn.Module, Any], Any] | None = None


def images(side: int, channels: int = 3, *frames: int) -> Callable[[torch.Generator], Tensor]:
    """Random images, or clips of ``frames`` of them."""

    def batch(generator: torch.Generator) -> Tensor:
        return torch.rand(SAMPLES, channels, *frames, side, side, generator=generator)

    return batch


def named(
    name: str, batch: Callable[[torch.Generator], Any]
) -> Callable[[torch.Generator], dict[str, Any]]:
    """The same as a mapping, under the name of the model's argument."""
    return lambda generator: {name: batch(generator)}


def numbers(*shape: int) -> Callable[[torch.Generator], Tensor]:
    """Normal numbers, ``shape`` a sample."""
    return lambda generator: torch.randn(SAMPLES, *shape, generator=generator)


def tokens(
    length: int = 7, vocabulary: int = 60, *, mask: bool = True, decoder: int = 0
) -> Callable[[torch.Generator], dict[str, Tensor]]:
    """Random tokens, none of them padding, and with ``decoder`` so many for the decoder."""

    def batch(generator: torch.Generator) -> dict[str, Tensor]:
        def some(n: int) -> Tensor:
            return torch.randint(5, vocabulary, (SAMPLES, n), generator=generator)

        found = {"input_ids": some(length)}
        if mask:
            found["attention_mask"] = torch.ones_like(found["input_ids"])
        if decoder:
            found["decoder_input_ids"] = some(decoder)
        return found

    return batch


def attribute(path: str) -> Any:
    """``package.module:name``, imported when it is asked for."""
    module, _, name = path.partition(":")
    return getattr(importlib.import_module(module), name)
