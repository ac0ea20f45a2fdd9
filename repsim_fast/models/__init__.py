"""Networks of the papers, by name, and their checkpoints without pickle."""

from .checkpoint import checkpoint_header, load_checkpoint, load_weights, save_checkpoint
from .registry import available, build

__all__ = [
    "available",
    "build",
    "checkpoint_header",
    "load_checkpoint",
    "load_weights",
    "save_checkpoint",
]
