"""The package's version, from its metadata, and those that a result depends on."""

from __future__ import annotations

import platform


def own_version() -> str:
    """Version of the installed package; of a source tree that was never installed "unknown"."""
    import importlib.metadata  # here, as it takes long and a command's help does not need it

    try:
        return importlib.metadata.version("repsim_fast")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def versions() -> dict[str, str]:
    """Versions that a result depends on."""
    # Here, because own_version() alone is to be quick.
    import numpy as np
    import torch

    return {
        "repsim_fast": own_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
    }
