"""Which layers of a model to watch, in what form their features come, and the hooks for it."""

from repsim_fast.capture.capture import Capture, list_layers, run
from repsim_fast.capture.features import Maps, feature_map
from repsim_fast.capture.layers import (
    ROOT,
    LayerInfo,
    LayerSpec,
    LayerTable,
    layer_kind,
    select_layers,
)

__all__ = [
    "ROOT",
    "Capture",
    "LayerInfo",
    "LayerSpec",
    "LayerTable",
    "Maps",
    "feature_map",
    "layer_kind",
    "list_layers",
    "run",
    "select_layers",
]
