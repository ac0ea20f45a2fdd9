"""Data that are read several times over, in the order of the first time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.utils.data import DataLoader


@contextlib.contextmanager
def rereading(data: Any) -> Iterator[Callable[[], None]]:
    """What brings the generators that loaders own back to where they are now.

    A loader's ``generator`` goes on from one reading to the next. Called before each, this makes
    all of them one; afterwards generators are where one reading leaves them, or, after an
    exception, at its start, so that the same can be done again.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader
        >>> loader = DataLoader(torch.arange(9), shuffle=True, generator=torch.Generator())
        >>> with rereading(loader) as rewind:
        ...     first = torch.cat(list(loader))
        ...     rewind()
        ...     second = torch.cat(list(loader))
        >>> first.equal(second)
        True
    """
    states = [(generator, generator.get_state()) for generator in _generators_of(data)]

    def rewind() -> None:
        for generator, state in states:
            generator.set_state(state)

    try:
        yield rewind
    except BaseException:
        rewind()
        raise


def _generators_of(data: Any) -> list[torch.Generator]:
    """Those of loaders, of their samplers and data sets, each once."""
    streams = data.values() if isinstance(data, Mapping) else [data]
    found: dict[int, torch.Generator] = {}
    for loader in streams:
        if isinstance(loader, DataLoader):
            of_batches = loader.batch_sampler
            owners = [loader, loader.sampler, of_batches, getattr(of_batches, "sampler", None)]
            for owner in (*owners, loader.dataset):
                own = getattr(owner, "__dict__", {}).values()
                found |= {id(one): one for one in own if isinstance(one, torch.Generator)}
    return list(found.values())
