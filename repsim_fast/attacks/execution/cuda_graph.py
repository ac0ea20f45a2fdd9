"""The steps of an attack as a CUDA graph: captured once, replayed as one launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.batch_checks import check_labels_below, check_logits
from repsim_fast._core.borrow import Model
from repsim_fast._core.cuda_graph import GraphedLoop
from repsim_fast.attacks.objective import Ascent
from repsim_fast.attacks.region import Region
from repsim_fast.ops.reference.steps import Scalar

Climb = Callable[[Ascent, Region, Tensor, Scalar, Tensor], tuple[Tensor, Tensor]]
"""(ascent, region, y, step size, start) -> (last iterate, first logits)."""

# Graphs kept for one model: more shapes than an epoch's whole and last batch are unusual, and each
# graph holds the memory of a forward and backward pass.
_KEPT = 4


Graphs = dict[Any, GraphedLoop]


def replay(
    climb: Climb,
    graphs: Graphs,
    settings: tuple[Any, ...],
    ascent: Ascent,
    region: Region,
    y: Tensor,
    size: Scalar,
    start: Tensor,
) -> Tensor:
    """The last iterate of ``climb``, captured where settings, shapes or numbers are new.

    Every tensor but the model's is an input of the graph; those stay where they are
    (``memory_of``), while their values may change.

    Args:
        climb: Waits for nothing and draws no random numbers.
        graphs: Where captured graphs are kept.
        settings: Whatever else ``climb`` depends on.
        ascent, region, y, size, start: Arguments of ``climb``.

    Raises:
        ValueError: Labels out of range or NaN logits at the start.
    """
    scalars: dict[str, Scalar] = {
        "eps": region.eps,
        "low": region.low,
        "high": region.high,
        "size": size,
    }
    inputs = {"x": region.x, "start": start, "y": y}
    inputs |= {name: value for name, value in scalars.items() if isinstance(value, Tensor)}
    device = region.x.device
    key = (
        settings,
        (ascent.loss, ascent.targeted, ascent.autocast),
        (torch.is_autocast_enabled(device.type), torch.get_autocast_dtype(device.type)),
        (region.norm, region.order),
        tuple(value for value in scalars.values() if not isinstance(value, Tensor)),
        tuple((name, value.shape, value.dtype) for name, value in inputs.items()),
    )

    def loop(held: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        now = {**scalars, **held}
        around = replace(region, x=held["x"], eps=now["eps"], low=now["low"], high=now["high"])
        return climb(ascent, around, held["y"], now["size"], held["start"])

    graph = graphs.pop(key, None)
    if graph is None:
        # Before the capture: a label out of range would leave the device unusable.
        check_logits(ascent.logits(start), y)
        while len(graphs) >= _KEPT:
            graphs.pop(next(iter(graphs)))  # the least recently used one
        graph = GraphedLoop(loop, inputs)
    else:
        check_labels_below(graph.outputs[1].shape[1], y)
    graphs[key] = graph
    adv, first_logits = graph(inputs)
    check_logits(first_logits, y)
    return adv


def memory_of(model: Model) -> tuple[int, ...]:
    """Where a model's tensors lie."""
    if not isinstance(model, nn.Module):
        return ()
    return tuple(tensor.data_ptr() for tensor in (*model.parameters(), *model.buffers()))
