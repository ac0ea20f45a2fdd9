"""What networks of several seeds that are trained alike have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from repsim_fast.analysis.estimates import Estimate, mean_over_seeds

from ..overfitting_lab import OverfittingLab
from ..regimes import is_collapsed


def cell(lab: OverfittingLab, scores: Sequence[dict[str, Estimate]]) -> dict[str, Any]:
    """Mean ``clean`` and ``robust`` accuracy, the share that has ``collapsed``, and of how many
    ``networks``."""
    gone = [is_collapsed(one, len(lab.carriers)) for one in scores]
    means = {kind: mean_over_seeds([one[kind] for one in scores]) for kind in ("clean", "robust")}
    return {**means, "collapsed": sum(gone) / len(gone), "networks": len(gone)}
