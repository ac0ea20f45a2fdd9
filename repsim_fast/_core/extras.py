"""Packages that one reader or one method needs, which a plain installation does without."""

from __future__ import annotations

import importlib
from types import ModuleType


def extra(module: str, *, of: str, purpose: str) -> ModuleType:
    """The module, from a package that ``pip install "repsim_fast[OF]"`` brings.

    Raises:
        ImportError: It is not installed; the message says what needs it and how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{purpose} needs {module.partition(".")[0]}: pip install "repsim_fast[{of}]"'
        ) from error
