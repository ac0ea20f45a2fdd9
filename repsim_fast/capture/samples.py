"""Where the samples of a batch are in what a layer returns, and how they come first."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from repsim_fast.capture.features import Channels

Place: TypeAlias = Literal["first", "second", "parts", "views"]
"""
- "first": (N, ...).
- "second": (T, N, ...).
- "parts": (N*k, ...), the k parts of a sample, such as windows, frames or tokens, side by side.
- "views": (k*N, ...), one view of all samples after the other, as a siamese network stacks them.
"""

# Equal samples may differ by rounding, by much less than different ones: where a matrix product
# ends, other instructions add up in another order.
_SHARE = 0.05
_ULPS = 64


class UnfitError(ValueError):
    """What a layer returns has no features of the form that was asked for."""


@dataclass(frozen=True)
class Places:
    """Where each layer of a model has its samples; "first" where nothing is said.

    Attributes:
        by_layer: Places, by the name of the call.
        reasons: Why the rows of other layers are no samples.
        middle: Of layers with parts or views, those of the sample in the middle of the batch.
        note: What could not be checked, and why.
    """

    by_layer: Mapping[str, Place] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict)
    middle: dict[str, Tensor] = field(default_factory=dict)
    note: str = ""

    def check_middle(self, name: str, x: Tensor, n: int) -> None:
        """Compare the parts or views of the sample in the middle of the first batch, once.

        Parts that are side by side need not be of the sample whose turn it is: each sample may have
        given an expert as many tokens in the small batch only.

        Raises:
            UnfitError: They are others, or others in number.
        """
        if (expected := self.middle.pop(name, None)) is None:
            return
        parts = by_sample(x, self.by_layer[name], n, None)
        others = [(parts[i], parts[n // 2]) for i in (0, -1)]
        if parts.shape[1:] != expected.shape or (
            closer([(parts[n // 2], expected)], others) is False
        ):
            raise UnfitError(f"{len(x)} rows, not the same number of each of {n} samples")


def by_sample(x: Tensor, place: Place, n: int, channels: Channels | None) -> Tensor:
    """(n, ...) with channels where they were.

    Parts of a sample become positions, views of it channels. Without ``channels`` their order is
    any, the same in every batch.

    Raises:
        UnfitError: The rows are no multiple of n.
    """
    if place == "first":
        return x
    if place == "second":
        return x.transpose(0, 1)
    if len(x) % n:
        raise UnfitError(f"{len(x)} rows for {n} samples")
    if place == "parts":
        x = x.reshape(n, -1, *x.shape[1:])
        return x.movedim(2, 1) if channels == "first" and x.ndim > 3 else x
    x = x.reshape(-1, n, *x.shape[1:])
    if channels == "last":
        return x.movedim(0, -2).flatten(-2)
    return x.movedim(0, 1).flatten(1, 2)


def find_place(x: Tensor, picks: Sequence[int]) -> tuple[Place | None, str]:
    """Where a layer has the samples of a batch in which some come more than once.

    Args:
        x: What the layer returned for the batch.
        picks: Which sample is at each place of the batch.

    Returns:
        The place; or None and why there is none.
    """
    m = len(picks)
    if x.ndim == 0:
        return None, "a single number"
    found = {place: _repeats(block, picks) for place, block in _blocks(x, m)}
    for place, repeats in found.items():
        if repeats:
            return place, ""
    if len(x) != m:
        alike = ", all alike" if None in found.values() else ""
        return None, f"{len(x)} rows for {m} samples{alike}"
    # Where nothing varies nothing tells, and rows are taken for what they are elsewhere.
    return ("first", "") if found["first"] is None else (None, EQUAL_SAMPLES_DIFFER)


EQUAL_SAMPLES_DIFFER = "equal samples give different rows"


def _blocks(x: Tensor, m: int) -> Iterator[tuple[Place, Callable[[int], Tensor]]]:
    """Places that m samples may have by the shape, and what gives the numbers of one of them."""
    if len(x) == m:
        yield "first", lambda i: x[i]
    elif len(x) and len(x) % m == 0:
        parts, views = (x.reshape(*sizes, *x.shape[1:]) for sizes in ((m, -1), (-1, m)))
        yield "parts", lambda i: parts[i]
        yield "views", lambda i: views[:, i]
    if x.ndim > 1 and x.shape[1] == m:
        yield "second", lambda i: x[:, i]


def _repeats(block: Callable[[int], Tensor], picks: Sequence[int]) -> bool | None:
    """Whether equal samples have equal numbers and others not; None where all are alike."""
    pairs = list(combinations(range(len(picks)), 2))
    equal = [(i, j) for i, j in pairs if picks[i] == picks[j]]
    other = [(i, j) for i, j in pairs if picks[i] != picks[j]]
    # Most layers, to the bit: the rest is for what rounding or chance did to some.
    if all(torch.equal(block(i), block(j)) for i, j in equal):
        return True if any(not torch.equal(block(i), block(j)) for i, j in other) else None
    return closer(
        [(block(i), block(j)) for i, j in equal], [(block(i), block(j)) for i, j in other]
    )


def differing_rows(one: Tensor, other: Tensor | None) -> Tensor:
    """Which rows (n,) of two matrices differ, by more than rounding; all if the shapes do."""
    if other is None or one.shape != other.shape:
        return torch.ones(len(one), dtype=torch.bool)
    size = one.double().norm(dim=1).max()
    rounding = _ULPS * torch.finfo(one.dtype).eps * size
    differing: Tensor = (one.double() - other.double()).norm(dim=1) > rounding
    return differing.cpu()


def closer(equal: Sequence[_Pair], other: Sequence[_Pair]) -> bool | None:
    """Whether some pairs are nearly equal and others are not; None where all are."""
    within, between = (max(float((a - b).double().norm()) for a, b in p) for p in (equal, other))
    size = max(float(a.double().norm()) for a, _ in (*equal, *other))
    rounding = _ULPS * torch.finfo(equal[0][0].dtype).eps * size
    if not max(within, between) > rounding:  # also where there is NaN, which is said elsewhere
        return None
    return within <= _SHARE * between


_Pair: TypeAlias = tuple[Tensor, Tensor]
