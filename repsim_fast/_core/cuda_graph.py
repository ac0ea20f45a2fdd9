"""Work on a GPU that is queued again and again on other inputs, as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

Loop = Callable[[Mapping[str, Tensor]], tuple[Tensor, ...]]


class GraphedLoop:
    """``loop`` with static inputs and outputs, as a CUDA graph.

    Attributes:
        device: Of inputs and outputs.
        outputs: What the last replay wrote.

    Args:
        loop: Named tensors -> tensors; no host synchronisation, no random numbers, and no tensor
            from outside but weights, whose memory stays where it is.
        inputs: Tensors of the shapes to come, on one GPU.
        beside: Another one of that GPU, whose memory for what lies between inputs and outputs this
            one shares: together they need as much as the largest. They then run one after another,
            also from several streams; not to be called from two threads at once.
    """

    _graph: torch.cuda.CUDAGraph
    # Of the last replay of those that share memory, with the copies of its results.
    _done: torch.cuda.Event

    def __init__(
        self, loop: Loop, inputs: Mapping[str, Tensor], *, beside: GraphedLoop | None = None
    ) -> None:
        self._pool = None if beside is None else beside._graph.pool()
        if beside is None:
            self._done = torch.cuda.Event()  # type: ignore[no-untyped-call]
        else:
            self._done = beside._done
        self._inputs = {name: value.clone() for name, value in inputs.items()}
        self.device = next(iter(inputs.values())).device
        # Casts cached by an outer autocast would be freed with it, the graph still reading them.
        cached = torch.is_autocast_cache_enabled()
        torch.set_autocast_cache_enabled(False)
        try:
            with torch.cuda.device(self.device):
                self._capture(loop)
        finally:
            torch.set_autocast_cache_enabled(cached)

    def _capture(self, loop: Loop) -> None:
        main = torch.cuda.current_stream()
        # Of this device: torch's own stream for captures is one for all.
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        try:
            side.wait_stream(main)
            with torch.cuda.stream(side):  # libraries choose kernels and allocate workspace
                loop(self._inputs)
            main.wait_stream(side)
            self._graph = torch.cuda.CUDAGraph()
            # Other threads, such as those that pin memory, may go on meanwhile.
            with torch.cuda.graph(
                self._graph, pool=self._pool, stream=side, capture_error_mode="thread_local"
            ):
                self.outputs = loop(self._inputs)
        finally:
            torch.cuda.set_stream(main)  # which a refused capture does not put back

    def __call__(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """Run on new values; the results are the caller's own."""
        # An event belongs to the device of its first record, and is of streams of the current one.
        with torch.cuda.device(self.device):
            self._done.wait()
            for name, value in inputs.items():
                self._inputs[name].copy_(value)
            self._graph.replay()
            results = tuple(output.clone() for output in self.outputs)
            self._done.record()
        return results
