"""Which layers of a model to watch, in what form their features come, and the hooks for it."""

from repsim_fast.capture.capture import Capture, list_layers, run
from repsim_fast.capture.features import Maps, feature_map
from repsim_fast.capture.kinds import layer_kind
from repsim_fast.capture.layers import (
    ROOT,
    LayerInfo,
    LayerSpec,
    LayerTable,
    left_out_by_default,
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
    "left_out_by_default",
    "list_layers",
    "run",
    "select_layers",
]
