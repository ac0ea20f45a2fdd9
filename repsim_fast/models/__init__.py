"""Networks of the papers, by name, and their checkpoints without pickle."""

from .checkpoint import load_checkpoint, save_checkpoint
from .registry import available, build

__all__ = ["available", "build", "load_checkpoint", "save_checkpoint"]
