"""Private random streams: one generator per device, none of them global."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from .checks import check_seed
from .threads import Turns


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
            elif isinstance(source, bool) or not hasattr(source, "__index__"):
                raise TypeError(
                    f"seed must be an integer, a torch.Generator or None, got {source!r}"
                )
            else:
                self._root.manual_seed(check_seed(source))
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


def seeded(seed: int) -> torch.Generator:
    """A generator of the CPU.

    Raises:
        TypeError: No integer.
        ValueError: One below 0, or beyond 63 bits.
    """
    return torch.Generator().manual_seed(check_seed(seed))


@contextlib.contextmanager
def private_rng(devices: torch.device | Iterable[torch.device], seed: int) -> Iterator[None]:
    """Seed the global generators of the CPU and of ``devices``; restore their states on exit.

    Threads take turns: the generators are the process's, and what a second thread drew inside
    would be missing from the first one's stream. Whoever borrows a model enters here first, so that
    threads take turns at its modes, buffers and gradients, too.
    """
    with _turn():
        yield from _seeded(devices, seed)


@contextlib.contextmanager
def aside(devices: Iterable[torch.device], *named: object) -> Iterator[None]:
    """Random numbers of their own within: they follow from ``named``, and those that come
    afterwards are as if nobody had drawn any."""
    digest = hashlib.sha256(repr(named).encode()).digest()
    yield from _seeded(devices, int.from_bytes(digest[:8], "big") >> 1)


_turn = Turns(
    "waiting for another thread that compares, trains or attacks: threads take turns at "
    "it, processes do not (does that thread wait for this one?)"
)


def _seeded(devices: torch.device | Iterable[torch.device], seed: int) -> Iterator[None]:
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


def generator_states(device: torch.device) -> dict[str, Tensor]:
    """States of the global generators that a model on the device draws from, by kind of device."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states
