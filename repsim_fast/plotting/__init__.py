"""Figures of grids of similarities."""

from repsim_fast.plotting.grids import (
    Theme,
    measure_name,
    plot_by_distance,
    plot_grids,
    to_png,
)

__all__ = ["Theme", "measure_name", "plot_by_distance", "plot_grids", "to_png"]
