"""Whether a graph computes what its model computes.

Reading a graph finds operations, not what else a forward pass may depend on: the number of images,
numbers of the one image that the graph is read with, hooks of all modules, or chance. Any of these
would make bounds of another network. So the graph is evaluated once on a few images, as bounds of
balls of radius 0, which must contain the model's own answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from repsim_fast._core.precision import full_precision, rounds_products

from .graph import Node, Traced, read
from .intervals import Bounds, Interval, ball, limits, propagated

# Several, since a layer such as ReLU may hide the difference in some.
_IMAGES = 4
# Share of the largest logit that products in TF32 or bfloat16 may move logits by.
_COARSE = 0.05


def check_agreement(
    traced: Traced,
    x: Tensor,
    bounds: Bounds | None = (0.0, 1.0),
    nodes: Sequence[Node] | None = None,
) -> None:
    """Raises ValueError unless graph and model, in eval mode, give images like ``x`` the same.

    Once for each kind of images; ``nodes`` are what ``read`` found, if it did already.
    """
    kind = (x.shape[1:], x.dtype, x.device)
    if kind in traced.agreed:
        return
    images = _some_unlike(x, bounds)
    with torch.no_grad(), full_precision():
        found = _at_points(read(traced, images) if nodes is None else nodes, images)
        logits = traced.model(images.clone())  # it may write on what it is given
    if logits.shape != found.low.shape:
        got = f"logits of shape {tuple(logits.shape)}, not {tuple(found.low.shape)}"
        raise _disagree(got)
    # Products in TF32 leave bounds, which are of float32, by no more than they round.
    coarse = x.dtype == torch.float32 and rounds_products(x.device)
    room = _COARSE * logits.abs().amax() if coarse else 0.0
    inside = (logits >= found.low - room) & (logits <= found.high + room)
    if not bool((inside | found.low.isnan() | found.high.isnan()).all()):  # NaN proves nothing
        beyond = torch.maximum(found.low - logits, logits - found.high).amax()
        raise _disagree(f"logits up to {beyond:.3g} beyond the graph's")
    traced.agreed.add(kind)


def _at_points(nodes: Sequence[Node], images: Tensor) -> Interval:
    """Bounds of a model's logits of the images themselves, as wide as rounding."""
    points = ball(images, 0.0, None)
    intervals: list[Interval] = []
    for node in nodes:
        inputs = [intervals[i] for i in node.inputs]
        intervals.append(propagated(node, inputs, points, rounded=True))
    return intervals[-1]


def _some_unlike(x: Tensor, bounds: Bounds | None) -> Tensor:
    """The first image and others, far from it, within ``bounds``."""
    first = x[:1].detach()
    shape = (_IMAGES - 1, *first.shape[1:])
    noise = torch.rand(shape, generator=torch.Generator().manual_seed(0))
    others = first + (2 * noise.to(first) - 1) * (1 + first.abs().amax())
    if bounds is not None:
        low, high = limits(x, bounds)
        others = others.clamp(min=low).clamp(max=high)
    return torch.cat((first, others))


def _disagree(got: str) -> ValueError:
    return ValueError(
        "model: its graph does not compute what the model computes, so that bounds would be of "
        f"something else: the model gives {_IMAGES} images {got}; look for the batch size used as "
        "a number, numbers of one image used as constants, hooks, or random numbers"
    )
