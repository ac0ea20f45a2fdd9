"""The command `repsim-fast`: one file for each of its commands.

A command's file, and those of options, import nothing that needs torch, so that help and completion
come at once: what computes is imported in the function that does.
"""

from .app import app, main

__all__ = ["app", "main"]
