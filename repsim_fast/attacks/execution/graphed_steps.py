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
from repsim_fast.attacks.problem import Problem
from repsim_fast.ops import Scalar

Steps = Callable[[Problem, Tensor], tuple[Tensor, Tensor]]
"""(problem, start) -> (last iterate, first logits)."""

# Graphs kept for one model: more shapes than an epoch's whole and last batch are unusual. They
# share the memory of the largest forward and backward pass; each has its own inputs and
# outputs, some images and logits.
_KEPT = 4


Graphs = dict[Any, GraphedLoop]
"""Of one model, by all that a graph has its own copy of."""


def replay(
    steps: Steps,
    graphs: Graphs,
    settings: tuple[Any, ...],
    problem: Problem,
    start: Tensor,
) -> Tensor:
    """The last iterate of ``steps``, captured where settings, shapes or numbers are new.

    Every tensor but the model's is an input of the graph; those stay where they are
    (``memory_of``), while their values may change.

    Args:
        steps: Waits for nothing and draws no random numbers.
        graphs: Where captured graphs of the model are kept.
        settings: Whatever else ``steps`` depends on.
        problem, start: Arguments of ``steps``.

    Raises:
        ValueError: Labels out of range or NaN logits at the start.
    """
    inputs = _tensors(problem, start)
    key = (settings, _constants(problem), tuple((n, t.shape, t.dtype) for n, t in inputs.items()))
    graph = graphs.pop(key, None)
    if graph is None:
        # Before the capture: a label out of range would leave the device unusable.
        check_logits(problem.objective.logits(start), problem.y)
        while len(graphs) >= _KEPT:
            graphs.pop(next(iter(graphs)))  # the least recently used one
        graph = GraphedLoop(
            lambda held: steps(_filled(problem, held), held["start"]),
            inputs,
            # Memory is shared as long as a graph of it lives: a pool that all have left is gone.
            beside=next((g for g in graphs.values() if g.device == start.device), None),
        )
    else:
        check_labels_below(graph.outputs[1].shape[1], problem.y)
    graphs[key] = graph
    adv, first_logits = graph(inputs)
    check_logits(first_logits, problem.y)
    return adv


def _scalars(problem: Problem) -> dict[str, Scalar]:
    region = problem.region
    return {"eps": region.eps, "low": region.low, "high": region.high, "size": problem.size}


def _tensors(problem: Problem, start: Tensor) -> dict[str, Tensor]:
    """The graph's inputs."""
    scalars = {n: value for n, value in _scalars(problem).items() if isinstance(value, Tensor)}
    return {"x": problem.region.x, "start": start, "y": problem.y, **scalars}


def _constants(problem: Problem) -> tuple[Any, ...]:
    """What a graph has its own copy of."""
    objective, region, kind = problem.objective, problem.region, problem.region.x.device.type
    return (
        (objective.loss, objective.targeted, objective.autocast),
        (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)),
        (region.norm, region.order),
        tuple(value for value in _scalars(problem).values() if not isinstance(value, Tensor)),
    )


def _filled(problem: Problem, held: Mapping[str, Tensor]) -> Problem:
    """The problem with the graph's own tensors in place of the caller's."""
    now = {**_scalars(problem), **held}
    region = replace(problem.region, x=held["x"], eps=now["eps"], low=now["low"], high=now["high"])
    return replace(problem, region=region, y=held["y"], size=now["size"])


def memory_of(model: Model) -> tuple[int, ...]:
    """Where a model's tensors lie, also those that its modules have as plain attributes."""
    if not isinstance(model, nn.Module):
        return ()
    held = (*model.parameters(), *model.buffers())
    loose = (t for m in model.modules() for t in vars(m).values() if isinstance(t, Tensor))
    return tuple(tensor.data_ptr() for tensor in (*held, *loose))
