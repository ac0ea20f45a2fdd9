"""Exact, fast comparison of what neural networks represent."""

from repsim_fast import (
    _registrations,  # noqa: F401  (tells torch about the operators)
    ops,
    similarity,
)
from repsim_fast._extension import build_info
from repsim_fast.capture import Capture, list_layers
from repsim_fast.compare import compare
from repsim_fast.results import SimilarityResult

__version__ = "0.1.0"

__all__ = [
    "Capture",
    "SimilarityResult",
    "__version__",
    "build_info",
    "compare",
    "list_layers",
    "ops",
    "similarity",
]
