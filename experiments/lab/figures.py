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
    """Difference of figures of the same seeds, its error that over seeds."""
    return {
        name: mean_over_seeds(
            [difference(a[name], b[name]) for a, b in zip(networks, others, strict=True)]
        )
        for name in networks[0]
    }
