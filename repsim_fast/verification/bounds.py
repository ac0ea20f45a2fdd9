"""Bounds of what a network can answer on a ball of images: IBP, CROWN and CROWN-IBP."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from repsim_fast._core.batch_checks import check_labels, check_labels_below, images_device
from repsim_fast._core.checks import check_choice, check_whole
from repsim_fast._core.kept_memory import kept_memory
from repsim_fast._core.precision import float32_products

from .agreement import check_agreement
from .backward import Rows, lower
from .graph import Node, Traced, read, trace
from .intervals import Bounds, Interval, ball, propagated
from .operations import MaxPool, ReLU

Method = Literal["ibp", "crown-ibp", "crown"]
# Neurons at a time: fewer see less of the planes before, and take as many steps.
_FEW = 64


def output_bounds(
    model: nn.Module | Traced,
    x: Tensor,
    eps: float,
    *,
    method: Method = "crown",
    bounds: Bounds | None = (0.0, 1.0),
    chunk: int = 256,
    rounded: bool = True,
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of each logit over {x' : |x' - x|_inf <= eps, x' within ``bounds``}.

    They enclose the exact network and its evaluation in the model's own dtype, whatever the order
    of its sums. Algorithms of other kinds, Winograd's or TF32, are not covered: bounds are computed
    without TF32, which torch takes for a network's convolutions on a GPU unless
    ``torch.backends.cudnn.conv.fp32_precision`` is "ieee". Differentiable with respect to
    parameters and images.

    Args:
        model: Any torch.fx graph of Linear, convolutions, also transposed, BatchNorm, ReLU, leaky
            or clamped, too, average and max pooling, concatenation, flatten, addition and
            constants, in eval mode; or what ``trace`` made of one, which many batches need once:
            to find the graph takes longer than "ibp" of a few images.
        x: Images (N, ...) in the dtype of the model, float32 or float64.
        eps: Radius of all images, a number, not negative.
        method: "ibp" (intervals: fastest, loosest), "crown" (linear bounds of every layer: slowest,
            tightest) or "crown-ibp" (intervals within, linear bounds of the output).
        bounds: Least and largest value of an image's pixel, numbers or tensors, one value per
            channel or such as broadcast to an image; None for no limit.
        chunk: Neurons at a time whose bounds CROWN computes, for the sake of memory.
        rounded: Allow for rounding. False computes the formulas of the papers, which takes less
            time and proves nothing: for training.

    Returns:
        Two tensors (N, n_classes), low and high.

    Raises:
        ValueError: A model that is not in eval mode or has a module without known bounds (named),
            a forward pass that its graph does not tell (batch size, hooks, chance),
            images outside ``bounds``, a value out of range.
        TypeError: Images in another dtype, a radius that is no number, bounds that are no pair.

    Example:
        >>> model = nn.Linear(2, 2, bias=False).eval()
        >>> _ = nn.init.eye_(model.weight)
        >>> low, high = output_bounds(model, torch.tensor([[0.5, 0.95]]), 0.125)
        >>> [round(v.item(), 4) for v in (*low[0], *high[0])]
        [0.375, 0.825, 0.625, 1.0]

    References:
        Gowal et al., "On the effectiveness of interval bound propagation", 2018; Zhang et al.,
        "Efficient neural network robustness certification with general activation functions"
        (CROWN), 2018; Zhang et al., "Towards stable and efficient training of verifiably robust
        neural networks" (CROWN-IBP), 2019.
    """
    device = images_device(x)
    with _as_allowed_for(device, rounded):
        nodes, intervals = _propagated(model, x, eps, method, bounds, chunk, rounded)
        last = nodes[-1].shape[0]
        eye = torch.eye(last, dtype=x.dtype, device=device)
        both = Rows(torch.cat((eye, -eye))[None])
        through = method != "ibp"
        found = lower(nodes, intervals, len(nodes) - 1, both, through=through, rounded=rounded)
    low, high = found[:, :last], -found[:, last:]
    return torch.maximum(low, intervals[-1].low), torch.minimum(high, intervals[-1].high)


def margin_bounds(
    model: nn.Module | Traced,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    method: Method = "crown",
    bounds: Bounds | None = (0.0, 1.0),
    chunk: int = 256,
    rounded: bool = True,
) -> Tensor:
    """Lower bounds (N, n_classes) of logit ``y`` minus each logit; 0 in column ``y``.

    An image whose other margins are positive is verified: no image of its ball is given another
    class. What is linear at the end and the difference are bounded as one. Arguments, errors and
    references as in ``output_bounds``; ``y`` are labels (N,) of two classes or more.
    """
    labels = check_labels(y, x)
    with _as_allowed_for(images_device(x), rounded):
        nodes, intervals = _propagated(model, x, eps, method, bounds, chunk, rounded)
        n_classes, last = nodes[-1].shape[0], len(nodes) - 1
        if n_classes < 2:  # whose margins would be none, and so all of them positive
            raise ValueError(f"model must return logits (N, n_classes >= 2), got {n_classes} class")
        check_labels_below(n_classes, labels)
        eye = torch.eye(n_classes, dtype=x.dtype, device=x.device)
        differences = Rows(eye[labels].unsqueeze(1) - eye)
        found = lower(nodes, intervals, last, differences, through=False, rounded=rounded)
        if method != "ibp":
            linear = lower(nodes, intervals, last, differences, through=True, rounded=rounded)
            found = torch.maximum(found, linear)
    return found.masked_fill(eye[labels].bool(), 0.0)


@contextlib.contextmanager
def _as_allowed_for(device: torch.device, rounded: bool) -> Iterator[None]:
    """Products that round no further than bounds allow for."""
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.autocast(device.type, enabled=False))
        if rounded:
            stack.enter_context(float32_products(device))
        yield


def _propagated(
    model: nn.Module | Traced,
    x: Tensor,
    eps: float,
    method: Method,
    bounds: Bounds | None,
    chunk: int,
    rounded: bool,
) -> tuple[list[Node], list[Interval]]:
    """The model's operations, and bounds of the values of each."""
    check_choice("method", method, get_args(Method))
    check_whole(chunk=chunk)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    images = ball(x, eps, bounds)
    traced = model if isinstance(model, Traced) else trace(model)
    if any(module.training for module in traced.model.modules()):
        raise ValueError("model must be in eval mode: call model.eval()")
    for name, parameter in traced.model.named_parameters():
        if parameter.dtype != x.dtype:
            raise TypeError(
                f"x must have the model's dtype {parameter.dtype} ({name}), got {x.dtype}"
            )
    nodes = read(traced, x)
    check_agreement(traced, x, bounds, nodes)
    bent = {i for node in nodes if isinstance(node.operation, ReLU | MaxPool) for i in node.inputs}
    intervals: list[Interval] = []
    # CROWN takes large blocks, chunk by chunk; the others would pay for giving them back.
    with kept_memory(x.device) if method == "crown" else contextlib.nullcontext():
        for index, node in enumerate(nodes):
            found = propagated(node, [intervals[i] for i in node.inputs], images, rounded)
            intervals.append(found)
            if method == "crown" and index in bent:
                intervals[index] = _tightened(nodes, intervals, index, chunk, rounded)
    return nodes, intervals


def _tightened(
    nodes: list[Node], intervals: list[Interval], index: int, chunk: int, rounded: bool
) -> Interval:
    """A node's bounds by CROWN, of the neurons whose sign, or place in a window, is open."""
    old = intervals[index]
    low, high = old.low.flatten(1), old.high.flatten(1)
    feeds_pool = any(isinstance(n.operation, MaxPool) and index in n.inputs for n in nodes)
    open_ = (low < high if feeds_pool else (low < 0) & (high > 0)).any(0).nonzero().squeeze(1)
    for part in _neighbours(open_, nodes[index].shape, chunk):
        rows = _one_of(part, nodes[index].shape, low)
        found = lower(nodes, intervals, index, rows, through=True, rounded=rounded)
        below = torch.maximum(low[:, part], found[:, : len(part)])
        above = torch.minimum(high[:, part], -found[:, len(part) :])
        low, high = low.index_copy(1, part, below), high.index_copy(1, part, above)
    return Interval(low.view_as(old.low), high.view_as(old.high), old.error)


def _neighbours(neurons: Tensor, shape: torch.Size, chunk: int) -> tuple[Tensor, ...]:
    """Parts of a node's ``neurons`` (their numbers), in planes of such as see the same places."""
    if len(neurons) == 0:
        return ()
    if len(shape) == 3:
        _, h, w = torch.unravel_index(neurons, shape)
        squares = (h // 2 * shape[2] + w // 2) * 4 + h % 2 * 2 + w % 2
        neurons = neurons[squares.argsort(stable=True)]
        chunk = min(chunk, max(shape[0], _FEW))
    return torch.split(neurons, chunk)


def _one_of(neurons: Tensor, shape: torch.Size, like: Tensor) -> Rows:
    """A row for each neuron, then one for its negative."""
    s = len(neurons)
    numbers = torch.arange(s, device=like.device)
    if len(shape) != 3:
        rows = torch.zeros(s, shape.numel(), dtype=like.dtype, device=like.device)
        rows[numbers, neurons] = 1
        return Rows(torch.cat((rows, -rows)).view(1, 2 * s, *shape))
    c, h, w = torch.unravel_index(neurons, shape)
    top, left = int(h.min()), int(w.min())
    size = (shape[0], int(h.max()) - top + 1, int(w.max()) - left + 1)
    rows = torch.zeros(s, *size, dtype=like.dtype, device=like.device)
    rows[numbers, c, h - top, w - left] = 1
    return Rows(torch.cat((rows, -rows))[None], (top, left))
