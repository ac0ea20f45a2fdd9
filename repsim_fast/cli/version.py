"""The line of `repsim-fast --version`."""

from __future__ import annotations

from repsim_fast._core.versions import own_version


def version_line() -> str:
    """Name and version, with that of torch, on which results depend most."""
    import importlib.metadata  # here, as it takes long

    return f"repsim-fast {own_version()} (torch {importlib.metadata.version('torch')})"
