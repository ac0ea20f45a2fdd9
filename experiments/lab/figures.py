"""Figures of networks by name: means over seeds, and differences of networks of the same seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from repsim_fast.analysis.estimates import Estimate, difference, mean_over_seeds

UNKNOWN = float("nan")

Figures = Mapping[str, Estimate]
"""Numbers of one network by name."""


def number(value: float) -> Estimate:
    """A number whose error is that over seeds alone."""
    return Estimate(value, UNKNOWN)


def mean_of(networks: Sequence[Figures]) -> dict[str, Estimate]:
    """Means over seeds."""
    return {name: mean_over_seeds([own[name] for own in networks]) for name in networks[0]}


def minus(networks: Sequence[Figures], others: Sequence[Figures]) -> dict[str, Estimate]:
    """Difference of figures of networks that share their seed, and their samples."""
    pairs = list(zip(networks, others, strict=True))
    return {
        name: mean_over_seeds([_paired(a[name], b[name], len(pairs)) for a, b in pairs])
        for name in networks[0]
    }


def _paired(a: Estimate, b: Estimate, networks: int) -> Estimate:
    """What the same samples do to a difference is not known from what they do to each number,
    unless there are replicates; of several networks it is in what these differ by, in part."""
    found = difference(a, b)
    return found if found.left_out or networks == 1 else number(found.value)
