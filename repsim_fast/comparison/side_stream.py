"""Work on what layers return, on a stream of its own beside the forward pass that goes on."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from repsim_fast.similarity.streaming.accumulator import Accumulator

ENABLED = False
"""Not before a GPU has shown that it wins: benchmarks/end_to_end_gpu.py measures both."""

AHEAD = 2
"""Layers that the forward pass may be ahead of the work on them, whose activations are kept."""


class Streams(Protocol):
    """The stream of the forward pass, and the one beside it."""

    def beside(self, work: Callable[[], None]) -> Any:
        """Queue work beside, after all that the forward pass has queued; what to wait for."""

    def wait(self, queued: Any) -> None:
        """Let the forward pass go on only after work that was queued beside."""


class CudaStreams:
    """Streams of one CUDA device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def beside(self, work: Callable[[], None]) -> torch.cuda.Event:
        """Queue work on the side stream."""
        self._side.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(self._side):
            work()
        return self._side.record_event()  # type: ignore[no-any-return]

    def wait(self, queued: torch.cuda.Event) -> None:
        """Order the current stream after the event."""
        torch.cuda.current_stream(self._device).wait_event(queued)


class _Held(NamedTuple):
    """What must stay as it is until the work on it is done."""

    layer: int
    activation: Tensor | None
    version: int
    features: Tensor | None  # memory that is the activation's or a copy's
    queued: Any  # None: nothing was queued beside


class SideStream:
    """Feeds an accumulator beside the forward pass.

    A layer that works in place may overwrite what a layer before it returned while that is still
    being read, and nothing tells beforehand. So the first batch is worked on in order, and each
    activation's version shows whether one of the next ``AHEAD`` layers overwrites it: those layers
    stay in order. The versions are looked at in later batches, too.

    Args:
        accumulator: One whose ``add`` and ``repeat`` only queue work.
        streams: The two streams.
    """

    def __init__(self, accumulator: Accumulator, streams: Streams) -> None:
        self._accumulator = accumulator
        self._streams = streams
        self._held: deque[_Held] = deque()  # of the latest AHEAD layers
        self._overwritten: set[int] = set()
        self._spoilt: int | None = None  # a layer that was overwritten while it was read
        self._in_order = True  # the present batch
        self._latest: int | None = None  # samples of the batch before

    def start_batch(self, n: int) -> None:
        """Say how many samples come: another number than before makes new buffers, in order."""
        self._in_order = n != self._latest
        self._latest = n

    def add(self, layer: int, features: Tensor, activation: Tensor) -> None:
        """Give the features of a layer's activation to the accumulator."""
        version = -1 if activation.is_inference() else activation._version
        if self._in_order or layer in self._overwritten or version < 0:
            self._accumulator.add(layer, features)
            queued = None
        else:
            queued = self._streams.beside(lambda: self._accumulator.add(layer, features))
        self._hold(_Held(layer, activation, version, features, queued))

    def repeat(self, layer: int, of: int) -> None:
        """Let the accumulator take for one layer what another brought, where that is known."""
        if self._in_order:
            self._accumulator.repeat(layer, of)
            queued = None
        else:
            queued = self._streams.beside(lambda: self._accumulator.repeat(layer, of))
        self._hold(_Held(layer, None, -1, None, queued))

    def end_pass(self) -> int | None:
        """Order what follows after all work. Gives a layer whose work is worth nothing, because it
        was overwritten in this batch and not in the first; None if there is none."""
        while self._held:
            self._release()
        return self._spoilt

    def _hold(self, held: _Held) -> None:
        if len(self._held) == AHEAD:
            self._release()
        self._held.append(held)

    def _release(self) -> None:
        held = self._held.popleft()
        if held.queued is not None:
            self._streams.wait(held.queued)
        if held.activation is not None and 0 <= held.version != held.activation._version:
            self._overwritten.add(held.layer)
            if held.queued is not None and self._spoilt is None:
                self._spoilt = held.layer


def side_stream(devices: Collection[torch.device], accumulator: Accumulator) -> SideStream | None:
    """One for models that all run on the same CUDA device, where that is enabled."""
    if not ENABLED or not accumulator.only_queues or len(set(devices)) != 1:
        return None
    (device,) = set(devices)
    return SideStream(accumulator, CudaStreams(device)) if device.type == "cuda" else None
