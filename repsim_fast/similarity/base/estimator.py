"""The two estimators of HSIC, and the centring of Grams that each needs."""

from __future__ import annotations

from typing import Literal

Estimator = Literal["unbiased", "biased"]

ESTIMATORS: tuple[Estimator, ...] = ("unbiased", "biased")

CENTERING: dict[str, Literal["unbiased", "double"]] = {"unbiased": "unbiased", "biased": "double"}
"""The centring of the Gram that each HSIC estimator needs."""


def hsic_scale(n: int, estimator: Estimator) -> float:
    """Factor from the inner product of centred Grams to HSIC: 1/(n(n-3)) or 1/(n-1)²."""
    return 1.0 / (n * (n - 3)) if estimator == "unbiased" else 1.0 / (n - 1) ** 2


def known_chance(estimator: Estimator) -> float | None:
    """Mean kernel alignment over all orders of the samples of one side, where no data change it.

    Entries of a U-centred Gram off the diagonal add up to 0, and those of the other one meet each
    of them equally often.
    """
    return 0.0 if estimator == "unbiased" else None
