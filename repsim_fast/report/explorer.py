"""What the page's script draws: results as data, nothing of them as markup."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np

from repsim_fast.analysis.estimates import student_interval
from repsim_fast.comparison.grid import Grid, is_distance, measure_title
from repsim_fast.comparison.overview import along_depth, by_distance
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.plotting import names_without_containers, stages_by_name
from repsim_fast.report.cells import Cells
from repsim_fast.report.library import packed

__all__ = ["explorer_data"]

_COLOURS = 17  # stops of the colour scale


def explorer_data(results: Mapping[str, SimilarityResult]) -> dict[str, str]:
    """The results for the page: "data", JSON, and "cells", numbers of 16 bits; both packed."""
    cells = Cells()
    described = {
        "colours": {name: _colour_scale(name) for name in ("magma", "viridis")},
        "results": [_described(heading, result, cells) for heading, result in results.items()],
    }
    text = json.dumps(described, allow_nan=False, separators=(",", ":"))
    return {"data": packed(text.encode()), "cells": packed(cells.content())}


def _described(heading: str, result: SimilarityResult, cells: Cells) -> dict[str, Any]:
    title = measure_title([result.between(0, 0)])
    held = {"value": result.value, "error": result.standard_error, "chance": result.chance}
    known = {k: v for k, v in held.items() if v is not None and np.isfinite(v).any()}
    pairs = [(i, j) for i in range(len(result.models)) for j in range(i, len(result.models))]
    means, distances = _figures(result, pairs)
    distance = is_distance(result.measure)
    groups = len(result.group_samples)
    return {
        "heading": f"{heading} ({title})" if heading else title,
        "measure": title,
        "distance": distance,
        "limits": [0.0, _largest(result) if distance else 1.0],
        "models": list(result.models),
        "layers": [list(layers) for layers in result.layers],
        "short": [names_without_containers(layers) for layers in result.layers],
        "stages": [stages_by_name(layers) for layers in result.layers],
        "size": len(result.value),
        "fields": {name: cells.add(matrix) for name, matrix in known.items()},
        # Half of a 95 % interval in standard errors.
        "quantile": _number(float(student_interval(0.0, 1.0, groups).high)),
        "means": means,
        "distances": distances,
    }


def _figures(
    result: SimilarityResult, pairs: Sequence[tuple[int, int]]
) -> tuple[list[list[Any]], dict[str, Any]]:
    """Of each pair of models [i, j, mean at the same depth, its error]; by "i,j" the means and
    errors by distance of square grids."""
    means, distances = [], {}
    for i, j in pairs:
        grid: Grid = result.between(i, j)
        means.append([i, j, *map(_number, along_depth(grid))])
        if grid.is_square:
            mean, error = by_distance(grid)
            distances[f"{i},{j}"] = [list(map(_number, mean)), list(map(_number, error))]
    return means, distances


def _number(value: float) -> float | None:
    """To five digits, as JSON can hold it."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


def _largest(result: SimilarityResult) -> float:
    return float(result.value[np.isfinite(result.value)].max(initial=0.0)) or 1.0


def _colour_scale(name: str) -> list[list[Any]]:
    places = np.linspace(0, 1, _COLOURS)
    colours = mpl.colormaps[name](places, bytes=True)[:, :3]
    return [[float(p), "#" + bytes(c).hex()] for p, c in zip(places, colours, strict=True)]
