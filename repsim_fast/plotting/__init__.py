"""Figures of arrays and names: heat maps and curves."""

from repsim_fast.plotting.curves import Curve, plot_curves
from repsim_fast.plotting.heat_maps import HeatMap, plot_heat_maps
from repsim_fast.plotting.stages import names_without_containers, stages_by_name
from repsim_fast.plotting.style import Theme, to_png

__all__ = [
    "Curve",
    "HeatMap",
    "Theme",
    "names_without_containers",
    "plot_curves",
    "plot_heat_maps",
    "stages_by_name",
    "to_png",
]
