"""All pairs of many representations: cost for each of them, and one small operation a pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from repsim_fast.similarity.base.measure import (
    Measure,
    as_measure,
    comparable,
    warn_of_caution,
    warn_of_no_gradient,
)
from repsim_fast.similarity.base.pairs import Pairs, all_pairs, filled
from repsim_fast.similarity.base.prepared import Prepared, prepare
from repsim_fast.similarity.base.store import Spill


def grid(
    measure: str | Measure[Any],
    xs: Sequence[Tensor | Prepared],
    ys: Sequence[Tensor | Prepared] | None = None,
    *,
    memory: int | None = None,
    **options: Any,
) -> Tensor:
    """A measure of all pairs of representations, such as the layers of two models.

    Each representation is factorised once. Pairs are then compared many at a time, in products and
    batched singular values of bounded memory. Without ``ys`` symmetric measures are computed for
    one triangle, and not for pairs of a representation with itself where that value is known.

    Args:
        measure: Name (see `measure_names`), or a measure from `get_measure`.
        xs: Representations (n, p_i) of the same n samples, or prepared ones.
        ys: Others of the same samples. Default: ``xs`` among themselves.
        memory: Bytes of factorisations that may stay in memory, which are about as large as the
            representations; what is more goes to files mapped into memory. Default: no limit.
        **options: Options of the measure, if it is given by name.

    Returns:
        (len(xs), len(ys)) float64; row i, column j is the measure of xs[i] and ys[j].

    Raises:
        TypeError: A representation is not a floating-point tensor, or is not in a sequence.
        ValueError: Unknown measure or option; shapes do not fit; NaN or Inf.
        UndefinedError: As for the measure; the message has the number. A ValueError.

    Example:
        >>> import torch
        >>> from repsim_fast.similarity import grid
        >>> layers = [torch.randn(100, p) for p in (5, 10, 20)]
        >>> grid("svcca", layers, components=4).shape
        torch.Size([3, 3])
    """
    chosen = as_measure(measure, options)
    for argument, several in (("xs", xs), ("ys", ys)):
        if isinstance(several, (Tensor, Prepared)):
            kind = type(several).__name__
            raise TypeError(f"{argument}: expected a sequence of representations, got a {kind}")
        if several is not None and len(several) == 0:
            raise ValueError(f"{argument}: expected at least one representation")
    everything = [prepare(x, name=f"xs[{i}]") for i, x in enumerate(xs)]
    everything += [prepare(y, name=f"ys[{i}]") for i, y in enumerate(() if ys is None else ys)]
    warn_of_no_gradient(chosen, everything)
    everything = comparable(everything, chosen.min_samples)
    spill = Spill(memory)
    try:
        # Each is let go of once its view is there, and with it the rest of what was factorised.
        views = [spill.keep(chosen.view(everything.pop(0))) for _ in range(len(everything))]
        left, right = (views, views) if ys is None else (views[: len(xs)], views[len(xs) :])
        warn_of_caution(chosen, left, right, stacklevel=3)
        return within(chosen, left) if ys is None else between(chosen, left, right)
    finally:
        spill.close()


def within(measure: Measure[Any], views: Sequence[Any]) -> Tensor:
    """Values (L, L) of all pairs of one set."""
    size, info = len(views), measure.info
    pairs = all_pairs(size, size, mirrored=info.symmetric)
    if info.of_itself is not None:
        pairs = [(i, j) for i, j in pairs if i != j]
    return _filled(measure, views, views, pairs, (size, size))


def between(measure: Measure[Any], left: Sequence[Any], right: Sequence[Any]) -> Tensor:
    """Values (L, M) of all pairs of two sets."""
    pairs = all_pairs(len(left), len(right), mirrored=False)
    return _filled(measure, left, right, pairs, (len(left), len(right)))


def _filled(
    measure: Measure[Any],
    left: Sequence[Any],
    right: Sequence[Any],
    pairs: Pairs,
    shape: tuple[int, int],
) -> Tensor:
    values = torch.zeros(shape, dtype=torch.float64)
    if left is right and measure.info.of_itself is not None:
        values.fill_diagonal_(measure.info.of_itself)
    if not pairs:
        return values
    computed = measure.pairs(left, right, pairs).double()
    return filled(values, pairs, computed, mirrored=left is right and measure.info.symmetric)
