"""Exact, fast comparison of what neural networks represent."""

from __future__ import annotations

import functools
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from repsim_fast import ops, similarity
    from repsim_fast.capture import Capture, list_layers
    from repsim_fast.comparison.compare import compare
    from repsim_fast.comparison.grid import Grid
    from repsim_fast.comparison.record import record
    from repsim_fast.comparison.recording import Recording
    from repsim_fast.comparison.result import SimilarityResult, load
    from repsim_fast.comparison.zoo import compare_zoo
    from repsim_fast.ops.extension import build_info

    __version__: str

__all__ = [
    "Capture",
    "Grid",
    "Recording",
    "SimilarityResult",
    "__version__",
    "build_info",
    "compare",
    "compare_zoo",
    "list_layers",
    "load",
    "ops",
    "record",
    "similarity",
]

# Loaded when asked for: torch takes seconds, which the command's help and completion do without.
_HOMES = {
    "Capture": "capture",
    "Grid": "comparison.grid",
    "Recording": "comparison.recording",
    "SimilarityResult": "comparison.result",
    "build_info": "ops.extension",
    "compare": "comparison.compare",
    "compare_zoo": "comparison.zoo",
    "list_layers": "capture",
    "load": "comparison.result",
    "record": "comparison.record",
}


@functools.cache
def _rooms() -> frozenset[str]:
    import pkgutil  # here, as nothing else at the start of a command needs it

    return frozenset(module.name for module in pkgutil.iter_modules(__path__) if module.ispkg)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        value: Any = importlib.import_module("repsim_fast._core.versions").own_version()
    elif name in _HOMES:
        value = getattr(importlib.import_module(f"repsim_fast.{_HOMES[name]}"), name)
    elif name in _rooms():
        value = importlib.import_module(f"repsim_fast.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_rooms()})
