"""Where along the amplitude training collapses and recovers, and in which epoch it collapsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from repsim_fast.analysis.estimates import Estimate

from .thresholds import LEFT, SEEMS

Bracket = tuple[float, float]
"""Neighbouring amplitudes between which something begins."""


@dataclass(frozen=True)
class Regimes:
    """The collapse along rising amplitudes; None where a border is not among them."""

    onset: Bracket | None
    end: Bracket | None
    collapsed: tuple[bool, ...]


def is_collapsed(scores: Mapping[str, Estimate], n_classes: int) -> bool:
    """Whether robustness is lost against many steps and seems to hold against one."""
    clean, fgsm, robust = (scores[name].value for name in ("clean", "fgsm", "robust"))
    return clean >= 2 / n_classes and robust < LEFT * clean and fgsm >= SEEMS * clean


def regimes(betas: Sequence[float], collapsed: Sequence[bool]) -> Regimes:
    """Onset: from not collapsed to collapsed. End: from the last collapsed to the next."""
    at = [index for index, value in enumerate(collapsed) if value]
    onset = (betas[at[0] - 1], betas[at[0]]) if at and at[0] > 0 else None
    last = at[-1] if at else len(betas)
    end = (betas[last], betas[last + 1]) if last + 1 < len(betas) else None
    return Regimes(onset, end, tuple(map(bool, collapsed)))


def is_robust(scores: Mapping[str, Estimate], n_classes: int) -> bool:
    """Whether a network has learned something that holds against many steps."""
    clean, robust = scores["clean"].value, scores["robust"].value
    return clean >= 2 / n_classes and robust >= LEFT * clean


def collapse(along: Sequence[Mapping[str, Estimate]], n_classes: int) -> tuple[int, int] | None:
    """The last robust measurement of a training before the first from which on it is collapsed to
    the end; between them may lie some of a network that holds against nothing.

    None of a training that does not end collapsed, or never was robust before.
    """
    gone = [is_collapsed(one, n_classes) for one in along]
    if not gone or not gone[-1]:
        return None
    first = next(i for i in range(len(gone)) if all(gone[i:]))
    before = [i for i in range(first) if is_robust(along[i], n_classes)]
    return (before[-1], first) if before else None
