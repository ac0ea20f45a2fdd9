"""Bounds of what a network can answer on a ball of images: IBP, CROWN and CROWN-IBP."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from repsim_fast._core.batch_checks import check_labels, check_labels_below, images_device
from repsim_fast._core.checks import check_choice, check_finite, check_whole

from .graph import Node, read
from .operations import Affine, Input, MaxPool, ReLU, Sum
from .rounding import away, narrowed, slack

Method = Literal["ibp", "crown-ibp", "crown"]


@dataclass(frozen=True)
class _Interval:
    """Bounds (N, ...) of a node's values, and how much its own arithmetic may round."""

    low: Tensor
    high: Tensor
    error: Tensor

    def magnitude(self) -> Tensor:
        return torch.maximum(self.low.abs(), self.high.abs())


def output_bounds(
    model: nn.Module,
    x: Tensor,
    eps: float,
    *,
    method: Method = "crown",
    bounds: tuple[float, float] | None = (0.0, 1.0),
    chunk: int = 256,
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds of each logit over {x' : |x' - x|_inf <= eps, x' within ``bounds``}.

    They enclose the exact network and its evaluation in the model's own dtype, whatever the order
    of its sums (algorithms of other kinds, Winograd's or TF32, are not covered). Differentiable
    with respect to parameters and images.

    Args:
        model: Any torch.fx graph of Linear, Conv2d, BatchNorm, ReLU, average and max pooling,
            flatten, addition and constants, in eval mode.
        x: Images (N, ...) in the dtype of the model, float32 or float64.
        eps: Radius, not negative.
        method: "ibp" (intervals: fastest, loosest), "crown" (linear bounds of every layer: slowest,
            tightest) or "crown-ibp" (intervals within, linear bounds of the output).
        bounds: Least and largest value of an image's pixel; None for no limit.
        chunk: Neurons at a time whose bounds CROWN computes, for the sake of memory.

    Returns:
        Two tensors (N, n_classes), low and high.

    Raises:
        ValueError: A model that is not in eval mode or has a module without known bounds (named),
            images outside ``bounds``, a value out of range.
        TypeError: Images in another dtype.

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
    with torch.autocast(device.type, enabled=False):  # which rounds further than is allowed for
        nodes, intervals = _propagated(model, x, eps, method, bounds, chunk)
        last = nodes[-1].shape[0]
        eye = torch.eye(last, dtype=x.dtype, device=device)
        both = torch.cat((eye, -eye)).expand(len(x), -1, -1)
        found = _backward(nodes, intervals, len(nodes) - 1, both, method != "ibp")
    low, high = found[:, :last], -found[:, last:]
    return torch.maximum(low, intervals[-1].low), torch.minimum(high, intervals[-1].high)


def margin_bounds(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    eps: float,
    *,
    method: Method = "crown",
    bounds: tuple[float, float] | None = (0.0, 1.0),
    chunk: int = 256,
) -> Tensor:
    """Lower bounds (N, n_classes) of logit ``y`` minus each logit; 0 in column ``y``.

    An image whose other margins are positive is verified: no image of its ball is given another
    class. What is linear at the end and the difference are bounded as one. Arguments, errors and
    references as in ``output_bounds``; ``y`` are labels (N,).
    """
    labels = check_labels(y, x)
    with torch.autocast(images_device(x).type, enabled=False):
        nodes, intervals = _propagated(model, x, eps, method, bounds, chunk)
        n_classes, last = nodes[-1].shape[0], len(nodes) - 1
        check_labels_below(n_classes, labels)
        eye = torch.eye(n_classes, dtype=x.dtype, device=x.device)
        differences = eye[labels].unsqueeze(1) - eye
        found = _backward(nodes, intervals, last, differences, False)
        if method != "ibp":
            linear = _backward(nodes, intervals, last, differences, True)
            found = torch.maximum(found, linear)
    return found.masked_fill(eye[labels].bool(), 0.0)


def _propagated(
    model: nn.Module,
    x: Tensor,
    eps: float,
    method: Method,
    bounds: tuple[float, float] | None,
    chunk: int,
) -> tuple[list[Node], list[_Interval]]:
    """The model's operations, and bounds of the values of each."""
    check_choice("method", method, get_args(Method))
    check_whole(chunk=chunk)
    if chunk < 1:
        raise ValueError(f"chunk must be at least 1, got {chunk}")
    images = _ball(x, eps, bounds)
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a module, got {type(model).__name__}")
    if any(module.training for module in model.modules()):
        raise ValueError("model must be in eval mode: call model.eval()")
    for name, parameter in model.named_parameters():
        if parameter.dtype != x.dtype:
            raise TypeError(
                f"x must have the model's dtype {parameter.dtype} ({name}), got {x.dtype}"
            )
    nodes = read(model, x)
    bent = {i for node in nodes if isinstance(node.operation, ReLU | MaxPool) for i in node.inputs}
    intervals: list[_Interval] = []
    for index, node in enumerate(nodes):
        found = _interval(node, [intervals[i] for i in node.inputs], images)
        intervals.append(found)
        if method == "crown" and index in bent:
            intervals[index] = _tightened(nodes, intervals, index, chunk)
    return nodes, intervals


def _ball(x: Tensor, eps: float, bounds: tuple[float, float] | None) -> _Interval:
    """Every image that a ball holds, rounded outwards."""
    images_device(x)
    if x.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"x must be in torch.float32 or torch.float64, got {x.dtype}")
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x must be a non-empty batch (N, ...), got shape {tuple(x.shape)}")
    check_finite("x", x)
    if not 0 <= eps < float("inf"):
        raise ValueError(f"eps must be a number that is not negative, got {eps}")
    low, high = x, x
    if eps > 0:
        # What an attack computes as x + eps rounds, and so does eps itself.
        room = eps * (1 + 2 * torch.finfo(x.dtype).eps)
        low, high = away(x - room, upwards=False), away(x + room, upwards=True)
    if bounds is not None:
        least, largest = bounds
        if not bool(((x >= least) & (x <= largest)).all()):
            raise ValueError(f"x must lie in [{least}, {largest}] (bounds), got values outside")
        low, high = low.clamp(min=least), high.clamp(max=largest)
    return _Interval(low, high, torch.zeros_like(x))


def _interval(node: Node, inputs: list[_Interval], images: _Interval) -> _Interval:
    """Bounds of one operation's values from bounds of its inputs' (IBP)."""
    operation = node.operation
    if isinstance(operation, Input):
        return images
    first = inputs[0]
    if isinstance(operation, ReLU):
        return _Interval(first.low.relu(), first.high.relu(), torch.zeros_like(first.low))
    if isinstance(operation, MaxPool):
        low, high = operation.pool(first.low)[0], operation.pool(first.high)[0]
        return _Interval(low, high, torch.zeros_like(low))
    dtype = first.low.dtype
    if isinstance(operation, Sum):
        second = inputs[1]
        ends = (second.low, second.high) if operation.sign > 0 else (-second.high, -second.low)
        error = slack(2, dtype) * (first.magnitude() + second.magnitude())
        error = error + torch.finfo(dtype).tiny
        return _Interval(first.low + ends[0] - error, first.high + ends[1] + error, error)
    if operation.terms == 0:
        low, high = operation.linear(first.low), operation.linear(first.high)
        return _Interval(low, high, torch.zeros_like(low))
    centre = (first.low + first.high) / 2
    radius = away(torch.maximum(first.high - centre, centre - first.low), upwards=True)
    middle = operation.linear(centre)
    reach = operation.magnitudes(radius)
    size = operation.magnitudes(centre.abs() + radius)
    if operation.bias is not None and operation.bias_magnitude is not None:
        middle, size = middle + operation.bias, size + operation.bias_magnitude
    terms = operation.terms + operation.uses
    # Products below the smallest number may vanish altogether.
    error = slack(terms, dtype) * size + 4 * terms * torch.finfo(dtype).tiny
    return _Interval(middle - reach - error, middle + reach + error, error)


def _tightened(nodes: list[Node], intervals: list[_Interval], index: int, chunk: int) -> _Interval:
    """A node's bounds by CROWN, of the neurons whose sign, or place in a window, is open."""
    old = intervals[index]
    low, high = old.low.flatten(1), old.high.flatten(1)
    feeds_pool = any(isinstance(n.operation, MaxPool) and index in n.inputs for n in nodes)
    open_ = (low < high if feeds_pool else (low < 0) & (high > 0)).any(0).nonzero().squeeze(1)
    for part in torch.split(open_, chunk) if len(open_) else ():
        rows = torch.zeros(len(part), low.shape[1], dtype=low.dtype, device=low.device)
        rows[torch.arange(len(part), device=low.device), part] = 1
        both = torch.cat((rows, -rows)).view(1, 2 * len(part), *nodes[index].shape)
        found = _backward(nodes, intervals, index, both.expand(len(low), *both.shape[1:]), True)
        below = torch.maximum(low[:, part], found[:, : len(part)])
        above = torch.minimum(high[:, part], -found[:, len(part) :])
        low, high = low.index_copy(1, part, below), high.index_copy(1, part, above)
    return _Interval(low.view_as(old.low), high.view_as(old.high), old.error)


def _backward(
    nodes: list[Node], intervals: list[_Interval], start: int, rows: Tensor, through: bool
) -> Tensor:
    """Lower bounds (N, S) of ``rows`` (N, S, ...) times the values of node ``start``.

    The rows are carried back to the images; ``through`` False stops at what is not linear, whose
    intervals then count (and so does everything before it).
    """
    coefficients: dict[int, Tensor] = {start: rows}
    total = torch.zeros(rows.shape[:2], dtype=torch.float64, device=rows.device)
    size = total  # of all that was added up
    epsilon, tiny = torch.finfo(rows.dtype).eps, torch.finfo(rows.dtype).tiny
    for index in range(start, -1, -1):
        if index not in coefficients:
            continue
        a, node, here = coefficients.pop(index), nodes[index], intervals[index]
        operation = node.operation
        parts: list[Tensor] = []
        # Adding up what came from several users of this node may have rounded.
        users = sum(n.inputs.count(index) for n in nodes)
        if users > 1:
            parts.append(-_size(a, here.magnitude()) * (users * epsilon))
        sent: list[Tensor] = []
        if isinstance(operation, Input) or (isinstance(operation, ReLU | MaxPool) and not through):
            parts += [_least(a.clamp(min=0), here.low), _least(a.clamp(max=0), here.high)]
        elif isinstance(operation, Affine | Sum):
            parts.append(-_size(a, here.error))
            if isinstance(operation, Sum):
                sent = [a, a * operation.sign]
            else:
                if operation.bias is not None:
                    parts.append(_least(a, operation.bias.expand(1, *node.shape)))
                back = operation.transposed(a.flatten(0, 1), nodes[node.inputs[0]].shape)
                sent = [back.view(*a.shape[:2], *back.shape[1:])]
        else:
            before = intervals[node.inputs[0]]
            if isinstance(operation, ReLU):
                back, constant = _relu_rows(a, before)
                terms = 2  # a product with the slope
            else:
                back, constant = _pool_rows(a, before, operation)
                terms = here.low[0, 0].numel() + 2  # windows that one place may win
            parts += [constant, -_size(back, before.magnitude()) * (terms * epsilon)]
            sent = [back]
        if sent:
            # Coefficients below the smallest number may have vanished altogether.
            reach = [intervals[i].magnitude().double().flatten(1).sum(1) for i in node.inputs]
            terms = operation.terms + operation.uses if isinstance(operation, Affine) else 1
            parts.append(-(torch.stack(reach).sum(0) * (4 * tiny * (1 + terms))).unsqueeze(1))
        for i, part in zip(node.inputs if sent else (), sent, strict=True):
            coefficients[i] = coefficients[i] + part if i in coefficients else part
        total = total + sum(parts[1:], parts[0])
        size = size + sum((part.abs() for part in parts[1:]), parts[0].abs())
    return narrowed(total - size * (4 * len(nodes) * torch.finfo(torch.float64).eps), rows.dtype)


def _size(a: Tensor, b: Tensor) -> Tensor:
    """|a| |b| (N, S) in float64, of (N, S, ...) and (N or 1, ...)."""
    return torch.einsum("nsk,nk->ns", a.abs().double().flatten(2), _flat(b.abs(), len(a)))


def _least(a: Tensor, b: Tensor) -> Tensor:
    """At most a b (N, S) in float64, which rounds too."""
    found = torch.einsum("nsk,nk->ns", a.double().flatten(2), _flat(b, len(a)))
    return found - _size(a, b) * (2 * a.shape[2:].numel() * torch.finfo(torch.float64).eps)


def _flat(b: Tensor, n: int) -> Tensor:
    return b.double().flatten(1).expand(n, -1)


def _relu_rows(a: Tensor, z: _Interval) -> tuple[Tensor, Tensor]:
    """Rows on ReLU's input, and a constant: the chord above, the nearer of 0 and x below.

    Any slope in [0, 1] is sound with the offset that puts its line above both ends.
    """
    low, high = z.low.clamp(max=0), z.high.clamp(min=0)
    on, off = z.low >= 0, z.high <= 0
    width = (high - low).clamp(min=torch.finfo(a.dtype).tiny)
    chord = (high / width).clamp(0, 1)
    slope = torch.where(on, 1.0, torch.where(off, 0.0, chord))
    wide = slope.double()
    offset = torch.maximum(high.double() * (1 - wide), -low.double() * wide)
    offset = torch.where(on | off, 0.0, offset * (1 + 1e-15))
    below = torch.where(on | (~off & (high > -low)), 1.0, 0.0).to(a.dtype)
    plus, minus = a.clamp(min=0), a.clamp(max=0)
    return plus * below.unsqueeze(1) + minus * slope.unsqueeze(1), _least(minus, offset)


def _pool_rows(a: Tensor, z: _Interval, operation: MaxPool) -> tuple[Tensor, Tensor]:
    """Rows on max pooling's input, and a constant: the likeliest place below, the maximum above."""
    with torch.no_grad():
        places = operation.pool(z.low)[1]
    highest = operation.pool(z.high)[0]
    plus, minus = a.clamp(min=0), a.clamp(max=0)
    plane = z.low.shape[2:].numel()
    flat = torch.zeros(*a.shape[:3], plane, dtype=a.dtype, device=a.device)
    where = places.flatten(2).unsqueeze(1).expand(*a.shape[:3], -1)
    back = flat.scatter_add(3, where, plus.flatten(3))
    return back.view(*a.shape[:3], *z.low.shape[2:]), _least(minus, highest)
