"""Forward passes of batches that are like the one before, as a CUDA graph."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.cuda_graph import GraphedLoop
from repsim_fast._core.nested import to_device
from repsim_fast.data.batches import Batch


class Replay:
    """Runs the passes of a batch: the first of its kind alone, those after it by one graph.

    Args:
        device: The GPU that all models are on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._graph: GraphedLoop | None = None
        self._latest: tuple[Any, ...] = ()  # what the batch before was like

    def run(self, batch: Batch, passes: Callable[[Batch], None]) -> bool:
        """Run a batch; whether its passes were replayed, in which no hook is called.

        Args:
            batch: The batch.
            passes: Runs all models on a batch.
        """
        kind = _kind(batch.x)
        again, self._latest = kind == self._latest, kind
        if not again:
            self._graph = None  # of other shapes, and of memory that may have moved
            passes(batch)
            return False
        inputs = _tensors(to_device(batch.x, self._device))
        if self._graph is None:
            self._graph = _captured(batch, inputs, passes)
        self._graph(inputs)
        return True


def _captured(
    batch: Batch, inputs: Mapping[str, Tensor], passes: Callable[[Batch], None]
) -> GraphedLoop:
    """A graph of the passes, on inputs whose values are put in before each replay."""

    def loop(held: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        x = held[""] if isinstance(batch.x, Tensor) else {**batch.x, **held}
        passes(batch._replace(x=x))
        return ()

    try:
        return GraphedLoop(loop, inputs)
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        raise RuntimeError(
            "cuda_graph: the forward passes cannot be captured; models must not wait for "
            f"the GPU, copy to the CPU or draw random numbers there: {error}"
        ) from error


def _tensors(x: Any) -> dict[str, Tensor]:
    """Tensors among a model's inputs, by name."""
    named = x if isinstance(x, Mapping) else {"": x}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _kind(x: Any) -> tuple[Any, ...]:
    """What must be equal for two batches to be worked on alike; something unique if that is not
    known of an input."""

    def kind_of(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.shape, value.dtype, value.stride()
        return value if isinstance(value, (int, float, str, type(None))) else object()

    return tuple((n, kind_of(v)) for n, v in (x if isinstance(x, Mapping) else {"": x}).items())
