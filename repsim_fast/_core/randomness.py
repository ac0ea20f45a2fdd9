"""Private random streams: one generator per device, none of them global."""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Iterable, Iterator

import torch


class Stream:
    """Random numbers of one attack, from a seed or from the caller's generator.

    Args:
        source: An int for a reproducible stream, a ``torch.Generator`` to draw from (for images on
            its device; elsewhere it seeds a generator of that device), None for fresh entropy.
    """

    def __init__(self, source: int | torch.Generator | None) -> None:
        if isinstance(source, torch.Generator):
            self._root = source
        else:
            self._root = torch.Generator()
            if source is None:
                self._root.seed()
            else:
                try:
                    self._root.manual_seed(operator.index(source))
                except TypeError:
                    raise TypeError(
                        f"seed must be an integer, a torch.Generator or None, got {source!r}"
                    ) from None
        self._generators: dict[torch.device, torch.Generator] = {self._root.device: self._root}

    def on(self, device: torch.device) -> torch.Generator:
        """The generator for tensors on ``device``."""
        if device not in self._generators:
            generator = torch.Generator(device)
            generator.manual_seed(self.seed())
            self._generators[device] = generator
        return self._generators[device]

    def seed(self) -> int:
        """A fresh seed drawn from the stream."""
        root = self._root
        return int(torch.randint(2**62, (), device=root.device, generator=root))


@contextlib.contextmanager
def private_rng(devices: torch.device | Iterable[torch.device], seed: int) -> Iterator[None]:
    """Seed the global generators of the CPU and of ``devices``; restore their states on exit."""
    generators = [torch.default_generator]
    for device in [devices] if isinstance(devices, torch.device) else devices:
        if device.type == "cuda":
            index = torch.cuda.current_device() if device.index is None else device.index
            generators.append(torch.cuda.default_generators[index])
    states = [generator.get_state() for generator in generators]
    try:
        for generator in generators:
            generator.manual_seed(seed)
        yield
    finally:
        for generator, state in zip(generators, states, strict=True):
            generator.set_state(state)
