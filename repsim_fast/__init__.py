"""Exact, fast comparison of what neural networks represent."""

from repsim_fast import (
    _registrations,  # noqa: F401  (tells torch about the operators)
    ops,
    similarity,
)
from repsim_fast._extension import build_info

__version__ = "0.1.0"

__all__ = ["__version__", "build_info", "ops", "similarity"]
