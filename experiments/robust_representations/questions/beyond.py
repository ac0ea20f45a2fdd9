"""Q9: is the difference significant, larger than between seeds, and what did in-place ReLUs do?"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.lab.report import Report
from repsim_fast.analysis.blocks import find_blocks
from repsim_fast.analysis.estimates import mean_over_seeds, one_sided_p, permutation_p
from repsim_fast.analysis.grids import Array, block_index, mean_off_diagonal, stage_contrast

from ..robust_lab import RobustLab
from . import components, in_place
from .common import MADE, STREAM, made_index, stream
from .seeds import KINDS, all_seeds


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """Tests of "block structure disappears", and the published heat maps' artefact."""
    return {
        "block structure": _tests(lab, report),
        "borders": _borders(lab, report),
        "first component": components.run(lab, report),
        "in place": in_place.run(lab, report),
    }


def _tests(lab: RobustLab, report: Report) -> dict[str, Any]:
    """Robust against standard networks, once over seeds and once over images."""
    standard, robust, found = all_seeds(lab)
    stages = found.stages(standard[0].name)
    tested = {
        "block index": lambda g: block_index(g, stages),
        MADE: made_index(found, standard[0].name, of_stream=False),
        STREAM: made_index(found, standard[0].name, of_stream=True),
        "stage contrast": lambda g: stage_contrast(g, stages),
        "mean off-diagonal": mean_off_diagonal,
    }
    rows, results = [], {}
    for name, index in tested.items():
        # Mean off-diagonal rises with robustness, the others fall.
        sign = 1 if name == "mean off-diagonal" else -1
        networks = {
            kind: [found.estimate(index, (v.name, v.name)) for v in views]
            for kind, views in (("standard", standard), ("robust", robust))
        }
        values = {kind: [e.value for e in own] for kind, own in networks.items()}
        pairs = [(v.name, v.name) for v in (*standard, *robust)]
        over_images = found.estimate(
            lambda *grids, i=index, s=sign: s * _mean_difference(i, grids),
            *pairs,
        )
        result = {
            **{kind: mean_over_seeds(own) for kind, own in networks.items()},
            "difference in the expected direction": over_images,
            "p over images": one_sided_p(over_images),
            "p over seeds": permutation_p(
                [sign * v for v in values["standard"]], [sign * v for v in values["robust"]]
            ),
        }
        results[name] = {**result, "networks": networks}
        rows.append({"index": name, **result})
    report.table("tests", rows)
    return results


def _borders(lab: RobustLab, report: Report) -> dict[str, Any]:
    """Blocks of the residual stream that are found without stages, and how sure they are."""
    standard, robust, found = all_seeds(lab)
    rows: list[dict[str, Any]] = []
    p_values: dict[str, list[float]] = {}
    for kind, views in zip(KINDS, (standard, robust), strict=True):
        p_values[kind] = []
        for view in views:
            grid = found.grid(view.name, view.name)
            at = stream(grid.rows)
            blocks = find_blocks(grid.value[np.ix_(at, at)], surrogates=999)
            p_values[kind].append(blocks.p_value)
            made = found.made_by(view.name)
            rows.append(
                {
                    "network": view.name,
                    "p of a border": f"{blocks.p_value:.3f}",
                    "borders before": " ".join(grid.rows[at[b]] for b in blocks.borders),
                    "made by": " ".join(made[at[b]] for b in blocks.borders),
                }
            )
    report.table("borders", rows)
    return {"p of a border": p_values, "rows": rows}


def _mean_difference(index: Any, grids: tuple[Array, ...]) -> float:
    """Mean of the second half of the grids (robust) minus that of the first (standard)."""
    values = np.array([index(g) for g in grids])
    half = len(values) // 2
    return float(values[half:].mean() - values[:half].mean())
