"""Weights taken out of a network: masks, what chooses them, and what is left."""

from .dense import apply
from .learned import learned_scores
from .magnitude import prune
from .remaining import LayerReport, Report, report
from .schedules import sparsities

__all__ = ["LayerReport", "Report", "apply", "learned_scores", "prune", "report", "sparsities"]
