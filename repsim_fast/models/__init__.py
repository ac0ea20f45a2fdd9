"""Networks by name: of the papers, of other libraries, of files of weights, all without pickle."""

from .checkpoint import checkpoint_header, load_checkpoint, load_weights, save_checkpoint
from .named import load
from .normalized import normalized
from .pretrained import available_pretrained, load_pretrained, save_pretrained
from .registry import available, build

__all__ = [
    "available",
    "available_pretrained",
    "build",
    "checkpoint_header",
    "load",
    "load_checkpoint",
    "load_pretrained",
    "load_weights",
    "normalized",
    "save_checkpoint",
    "save_pretrained",
]
