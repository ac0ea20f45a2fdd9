"""The command `repsim-fast`: one file for each of its commands."""

from .app import app, main

__all__ = ["app", "main"]
