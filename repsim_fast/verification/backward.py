"""Linear bounds of a network's values, carried back to its images (CROWN)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .graph import Node
from .intervals import Interval
from .operations import Affine, Cat, Input, MaxPool, Place, ReLU, Sum, window
from .rounding import away, narrowed

_EPS64 = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Rows:
    """Coefficients of a node's values.

    Attributes:
        values: (N or 1, S, ...), the latter where they are the same for all images. Of values in
            planes (C, H, W) a window of each plane, outside of which they are 0.
        origin: Of the window; (0, 0) where there are no planes.
    """

    values: Tensor
    origin: Place = (0, 0)

    def of(self, values: Tensor) -> Tensor:
        """What the coefficients belong to among a node's ``values`` (N or 1, ...)."""
        if values.ndim != 4:
            return values
        return window(values, self.origin, self.values.shape)

    def within(self, shape: torch.Size) -> Rows:
        """Without what lies beyond the edges of planes of this shape."""
        if len(shape) != 3:
            return self
        values, origin = self.values, list(self.origin)
        for d in (0, 1):
            first = max(0, -origin[d])
            last = min(values.shape[d - 2], shape[d - 2] - origin[d])
            if last <= first:  # nothing but padding is seen
                return Rows(values.new_zeros(*values.shape[:3], 1, 1))
            values = values.narrow(d - 2, first, last - first)
            origin[d] += first
        return Rows(values, (origin[0], origin[1]))

    def whole(self, shape: torch.Size) -> Tensor:
        """Of all values of planes of this shape."""
        return self.values if len(shape) != 3 else self._padded((0, 0), (shape[1], shape[2]))

    def __add__(self, other: Rows) -> Rows:
        if self.values.ndim != 5:
            return Rows(self.values + other.values)
        both = (self, other)
        starts = [min(rows.origin[d] for rows in both) for d in (0, 1)]
        ends = [max(rows.origin[d] + rows.values.shape[d - 2] for rows in both) for d in (0, 1)]
        origin, end = (starts[0], starts[1]), (ends[0], ends[1])
        return Rows(self._padded(origin, end) + other._padded(origin, end), origin)

    def _padded(self, origin: Place, end: Place) -> Tensor:
        sides: list[int] = []
        for d in (1, 0):
            before = self.origin[d] - origin[d]
            sides += [before, end[d] - origin[d] - before - self.values.shape[d - 2]]
        return F.pad(self.values, sides) if any(sides) else self.values


def lower(
    nodes: list[Node],
    intervals: list[Interval],
    start: int,
    rows: Rows,
    *,
    through: bool,
    rounded: bool,
) -> Tensor:
    """Lower bounds (N, S) of ``rows`` times the values of node ``start``.

    The rows are carried back to the images; ``through`` False stops at what is not linear, whose
    intervals then count (and so does everything before it).
    """
    users = Counter(i for node in nodes for i in node.inputs)
    finfo = torch.finfo(rows.values.dtype)
    carried = {start: rows}
    doubts: dict[int, float] = {}  # relative errors of what is carried
    parts: list[Tensor] = []
    for index in range(start, -1, -1):
        if index not in carried:
            continue
        a, node, here = carried.pop(index), nodes[index], intervals[index]
        operation = node.operation
        if rounded:
            parts.append(-_size(a, _doubt(node, here, doubts.pop(index, 0.0))))
        if isinstance(operation, Input) or (isinstance(operation, ReLU | MaxPool) and not through):
            for part, end in (
                (a.values.clamp(min=0), here.low),
                (a.values.clamp(max=0), here.high),
            ):
                parts.append(_least(Rows(part, a.origin), end, rounded))
            continue
        sent, constant, roundings = _before(operation, a, node, nodes, intervals, rounded)
        parts += constant
        if rounded:
            # Coefficients below the smallest number may have vanished altogether.
            terms = operation.terms + operation.uses if isinstance(operation, Affine) else 1
            for i in node.inputs:
                reach = intervals[i].magnitude().double().flatten(1).sum(1, keepdim=True)
                parts.append(-reach * (4 * finfo.tiny * (1 + terms)))
        for i, back in zip(node.inputs, sent, strict=True):
            if rounded and users[i] > 1:  # of each user's, before they may cancel
                parts.append(-_size(back, intervals[i].magnitude()) * (roundings * finfo.eps))
            elif rounded:
                doubts[i] = roundings * finfo.eps
            if i not in carried:
                carried[i] = back
                continue
            carried[i] = carried[i] + back
            if rounded:
                parts.append(-_size(carried[i], intervals[i].magnitude()) * finfo.eps)
    total = sum(parts[1:], parts[0])
    if not rounded:
        return total
    size = sum((part.abs() for part in parts[1:]), parts[0].abs())
    return narrowed(total - size * (2 * len(parts) * _EPS64), rows.values.dtype)


def _doubt(node: Node, here: Interval, relative: float) -> Tensor:
    """How much of each value, at a coefficient of 1, rounding may have changed."""
    doubt = here.magnitude() * relative
    if isinstance(node.operation, Affine | Sum):
        doubt = doubt + here.error
    if isinstance(node.operation, Affine) and node.operation.bias is not None:
        sizes = node.operation.bias.abs().expand_as(doubt)
        doubt = doubt + sizes * (4 * _EPS64 * node.shape.numel())
    return doubt


def _before(
    operation: Affine | Sum | Cat | ReLU | MaxPool,
    a: Rows,
    node: Node,
    nodes: list[Node],
    intervals: list[Interval],
    rounded: bool,
) -> tuple[list[Rows], list[Tensor], int]:
    """Rows on each input, constants, and how often the rows have been rounded."""
    if isinstance(operation, Sum):
        return [a, a if operation.sign > 0 else Rows(-a.values, a.origin)], [], 0
    if isinstance(operation, Cat):
        rows = a if operation.dim == 1 else Rows(a.whole(node.shape))
        parts = torch.split(rows.values, list(operation.sizes), operation.dim + 1)
        return [Rows(part, rows.origin) for part in parts], [], 0
    if isinstance(operation, Affine):
        constants = []
        if operation.bias is not None:
            constants = [_constant(a, operation.bias.expand(1, *node.shape), rounded)]
        shape = nodes[node.inputs[0]].shape
        # Its roundings are among the node's own error.
        return [_transposed(operation, a, node.shape, shape)], constants, 0
    before = intervals[node.inputs[0]]
    if isinstance(operation, ReLU):
        rows, constant = _relu_rows(a, before, rounded)
        return [rows], [constant], 2  # a product with the slope
    whole = Rows(a.whole(node.shape))
    rows, constant = _pool_rows(whole, before, operation, rounded)
    windows = node.shape[-operation.dims :].numel()  # that one place may win
    return [rows], [constant], windows + 2


def _transposed(operation: Affine, a: Rows, after: torch.Size, before: torch.Size) -> Rows:
    """Rows on the input, where values have the shape ``before``, of rows on the output."""
    if operation.windowed is not None and len(after) == len(before) == 3:
        back, origin = operation.windowed(a.values.flatten(0, 1), a.origin)
        return Rows(back.view(*a.values.shape[:2], *back.shape[1:]), origin).within(before)
    values = a.whole(after)
    back = operation.transposed(values.flatten(0, 1), before)
    return Rows(back.view(*values.shape[:2], *before))


def _size(a: Rows, b: Tensor) -> Tensor:
    """At least |a| |b| (N, S) in float64, of rows and a node's values (N or 1, ...)."""
    values, sizes = a.values.abs(), a.of(b).abs()
    terms, finfo = values.shape[2:].numel(), torch.finfo(values.dtype)
    if terms * finfo.eps > 0.01:  # too many for the limit of their sum's error
        values, sizes = values.double(), sizes.double()
    found = _product(values, sizes).double()
    return found * (1 + 2 * (terms + 2) * finfo.eps) + terms * finfo.tiny


def _least(a: Rows, b: Tensor, rounded: bool) -> Tensor:
    """At most a b (N, S), in float64 where it is rounded."""
    values, factors = a.values, a.of(b)
    if not rounded:
        return _product(values, factors)
    if len(values) == 1:
        found, error = _product(values.double(), factors.double()), 0.0
    else:
        found, error = _summed(values * factors[:, None])
    error = error + 2 * values.shape[2:].numel() * _EPS64
    return found - _size(a, b) * error - values.shape[2:].numel() * torch.finfo(values.dtype).tiny


def _summed(products: Tensor) -> tuple[Tensor, float]:
    """Sums (N, S) in float64 of (N, S, ...), and how large an error, the products' among it, may be
    in relation to the sum of magnitudes.
    """
    # A few in their own dtype, which takes no copy of them.
    flat = products.flatten(2)
    terms = flat.shape[2]
    few = max(n for n in range(1, min(64, terms) + 1) if terms % n == 0)
    found = flat.view(*flat.shape[:2], -1, few).sum(3).sum(2, dtype=torch.float64)
    return found, (few + 1) * torch.finfo(flat.dtype).eps + 2 * terms * _EPS64


def _product(rows: Tensor, values: Tensor) -> Tensor:
    """Products (N, S) of (N or 1, S, ...) and (N or 1, ...)."""
    rows, values = rows.flatten(2), values.flatten(1)
    if len(rows) == 1:
        return values @ rows[0].mT
    return (rows @ values[:, :, None]).squeeze(2)


def _constant(a: Rows, bias: Tensor, rounded: bool) -> Tensor:
    """a bias (N or 1, S), with no rounding but that of float64 where it is rounded."""
    values, bias = a.values, a.of(bias)
    same = [d for d in range(1, bias.ndim) if bias.stride(d) == 0 or bias.shape[d] == 1]
    dtype = torch.float64 if rounded else values.dtype
    if same:
        values = values.sum([d + 1 for d in same], keepdim=True, dtype=dtype)
    for d in same:
        bias = bias.narrow(d, 0, 1)
    return values.flatten(2).to(dtype) @ bias.flatten().to(dtype)


def _relu_rows(a: Rows, z: Interval, rounded: bool) -> tuple[Rows, Tensor]:
    """Rows on ReLU's input, and a constant: the chord above, the nearer of 0 and x below.

    Any slope in [0, 1] is sound with the offset that puts its line above both ends.
    """
    values, ends = a.values, (a.of(z.low), a.of(z.high))
    finfo = torch.finfo(values.dtype)
    low, high = ends[0].clamp(max=0), ends[1].clamp(min=0)
    on, off = ends[0] >= 0, ends[1] <= 0
    chord = (high / (high - low).clamp(min=finfo.tiny)).clamp(0, 1)
    slope = torch.where(on, 1.0, torch.where(off, 0.0, chord))
    wide = slope.double() if rounded else slope
    offset = torch.maximum(high * (1 - wide), -low * wide)
    if rounded:
        offset = away((offset * (1 + 1e-15)).to(values.dtype), upwards=True)
    offset = torch.where(on | off, 0.0, offset)
    below = torch.where(on | (~off & (high > -low)), 1.0, 0.0).to(values.dtype)
    back = Rows(values * torch.where(values >= 0, below[:, None], slope[:, None]), a.origin)
    minus = values.clamp(max=0)
    if not rounded:
        return back, _product(minus, offset)
    constant, error = _summed(minus * offset[:, None])
    # All of one sign, so that the error is a share of the sum.
    return back, constant * (1 + 2 * error) - offset[0].numel() * finfo.tiny


def _pool_rows(a: Rows, z: Interval, operation: MaxPool, rounded: bool) -> tuple[Rows, Tensor]:
    """Rows on max pooling's input, and a constant: the likeliest place below, the maximum above.

    Where that place is the largest for certain, it is the window's value.
    """
    values, dims = a.values, operation.dims
    highest = operation.pool(z.high)[0]
    above, below = values.clamp(max=0), values.clamp(min=0)
    with torch.no_grad():
        least, places = operation.pool(z.low)
    if operation.apart:
        with torch.no_grad():
            flat = z.high.flatten(-dims).scatter(-1, places.flatten(-dims), -torch.inf)
            certain = (operation.pool(flat.view_as(z.high))[0] <= least)[:, None]
        above, below = torch.where(certain, 0.0, above), torch.where(certain, values, below)
    pooled = z.low.shape[-dims:]
    shape = (len(z.low), values.shape[1], *z.low.shape[1:-dims])
    flat = torch.zeros(*shape, pooled.numel(), dtype=values.dtype, device=values.device)
    where = places.flatten(-dims)[:, None].expand(*shape, -1)
    back = flat.scatter_add(-1, where, below.flatten(-dims).expand(*shape, -1))
    return Rows(back.view(*shape, *pooled)), _least(Rows(above), highest, rounded)
