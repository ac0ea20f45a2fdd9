"""Networks of the papers, by name, and their checkpoints without pickle; trained ones."""

from .checkpoint import checkpoint_header, load_checkpoint, load_weights, save_checkpoint
from .pretrained import available_pretrained, load_pretrained, save_pretrained
from .registry import available, build

__all__ = [
    "available",
    "available_pretrained",
    "build",
    "checkpoint_header",
    "load_checkpoint",
    "load_pretrained",
    "load_weights",
    "save_checkpoint",
    "save_pretrained",
]
