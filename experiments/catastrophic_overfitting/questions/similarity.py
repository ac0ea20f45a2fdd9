"""Q6, beyond the paper: which layers does the collapse change?"""

from __future__ import annotations

from typing import Any

import numpy as np

from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Array
from repsim_fast.data.interventions import inject

from ..overfitting_lab import OverfittingLab
from ..recipes import Recipe
from ..units import dimensions
from .along import scores_along, where


def run(lab: OverfittingLab, report: Report) -> dict[str, Any]:
    """Before against after, layer by layer, beside the same epochs without feature."""
    recipe, beta = lab.recipe(), lab.preset.focus[1]
    found = where(scores_along(lab, recipe), len(lab.carriers))
    # Without a collapse the same is shown of the middle of the training, and no claim is judged.
    before, after = found or (lab.kept[(len(lab.kept) - 1) // 2], lab.kept[-1])
    views = {
        "before": (recipe, before),
        "after": (recipe, after),
        "control before": (lab.recipe(beta=0.0), before),
        "control after": (lab.recipe(beta=0.0), after),
        "pgd": (lab.recipe("pgd"), after),
        "standard": (lab.recipe("standard"), after),
    }
    grids = lab.compare_on(beta, views)
    layers = grids.layers[0]
    pairs = {
        "before, after": ("before", "after"),
        "the same epochs without feature": ("control before", "control after"),
        "before, PGD": ("before", "pgd"),
        "after, PGD": ("after", "pgd"),
        "before, standard": ("before", "standard"),
        "after, standard": ("after", "standard"),
    }
    curves = {name: grids.curve(_diagonal, pair) for name, pair in pairs.items()}
    images = inject(lab.test_data, beta / 255, lab.carriers)[0].to(lab.preset.device)
    used = {
        name: dimensions(lab.network(*view), images, lab.layers) for name, view in views.items()
    }
    report.table(
        "layers",
        [
            {"layer": layer, **{name: curve[i] for name, curve in curves.items()}}
            for i, layer in enumerate(layers)
        ],
    )
    report.table(
        "dimensions",
        [{"layer": layer, **{name: own[layer] for name, own in used.items()}} for layer in layers],
    )
    report.lines(
        "layers", curves, xlabel="layer", ylabel="CKA, same layer",
        title=f"Epoch {before} and {after}, {'across' if found else 'without'} a collapse",
    )  # fmt: skip
    four = [(a, b) for a, b in (("before", "after"), ("control before", "control after"))]
    return {
        "collapsed": found is not None,
        "epochs": [before, after],
        "change": {
            "collapse": grids.estimate(_change, four[0]),
            "control": grids.estimate(_change, four[1]),
            "collapse minus control": grids.estimate(lambda a, b: _change(a) - _change(b), *four),
            "last block minus first": grids.estimate(_depth, four[0]),
        },
        "nearer to standard than before": grids.estimate(
            lambda a, b: _change(b) - _change(a), ("after", "standard"), ("before", "standard")
        ),
        "nearer to PGD than before": grids.estimate(
            lambda a, b: _change(b) - _change(a), ("after", "pgd"), ("before", "pgd")
        ),
        "dimensions": {k: used[k] for k in ("before", "after", "pgd", "standard")},
    }


def _diagonal(grid: Array) -> Array:
    return np.diagonal(grid)


def _change(grid: Array) -> float:
    """1 - CKA of the same layer, a mean over layers."""
    return float(1 - np.diagonal(grid).mean())


def _depth(grid: Array) -> float:
    """Change of the last block beyond that of the first; between stem and logits are the blocks."""
    same = np.diagonal(grid)[1:-1]
    return float(same[0] - same[-1])


def recipes(lab: OverfittingLab) -> list[Recipe]:
    """All that are compared."""
    return [lab.recipe(), lab.recipe(beta=0.0), lab.recipe("pgd"), lab.recipe("standard")]
