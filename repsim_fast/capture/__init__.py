"""Which layers of a model to watch, in what form their features come, and the hooks for it."""

from repsim_fast._core.inputs import run
from repsim_fast.capture.capture import Capture, list_layers
from repsim_fast.capture.forms import Forms, Maps
from repsim_fast.capture.kinds import layer_kind
from repsim_fast.capture.layer_masks import check_masks
from repsim_fast.capture.layers import (
    ROOT,
    LayerInfo,
    LayerSpec,
    LayerTable,
    by_names,
    left_out_by_default,
    modules_by_layer,
    select_layers,
)
from repsim_fast.capture.layout import ChannelsOf
from repsim_fast.capture.masks import MaskSpec, find_mask
from repsim_fast.capture.probe import find_places
from repsim_fast.capture.samples import UnfitError

__all__ = [
    "ROOT",
    "Capture",
    "ChannelsOf",
    "Forms",
    "LayerInfo",
    "LayerSpec",
    "LayerTable",
    "Maps",
    "MaskSpec",
    "UnfitError",
    "by_names",
    "check_masks",
    "find_mask",
    "find_places",
    "layer_kind",
    "left_out_by_default",
    "list_layers",
    "modules_by_layer",
    "run",
    "select_layers",
]
