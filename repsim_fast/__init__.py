"""Exact, fast comparison of what neural networks represent."""

from repsim_fast import ops, similarity
from repsim_fast._core.versions import own_version
from repsim_fast.capture import Capture, list_layers
from repsim_fast.comparison.compare import compare
from repsim_fast.comparison.grid import Grid
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.ops.extension import build_info

__version__ = own_version()

__all__ = [
    "Capture",
    "Grid",
    "SimilarityResult",
    "__version__",
    "build_info",
    "compare",
    "list_layers",
    "ops",
    "similarity",
]
