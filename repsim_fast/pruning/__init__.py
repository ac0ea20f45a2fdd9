"""Weights taken out of a network: masks, what chooses them, and what is left."""

from .dense import apply, put, unmasked
from .learned import kept_weights, learned_scores
from .magnitude import hold_zeros, prune
from .remaining import LayerReport, Report, report
from .schedules import sparsities

__all__ = [
    "LayerReport",
    "Report",
    "apply",
    "hold_zeros",
    "kept_weights",
    "learned_scores",
    "prune",
    "put",
    "report",
    "sparsities",
    "unmasked",
]
