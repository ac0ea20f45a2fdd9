"""Which layers of a model to watch, in what form their features come, and the hooks for it."""

from repsim_fast.capture.capture import Capture, list_layers, run
from repsim_fast.capture.layers import ROOT, layer_kind

__all__ = ["ROOT", "Capture", "layer_kind", "list_layers", "run"]
