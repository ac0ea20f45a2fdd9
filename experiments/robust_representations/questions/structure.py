"""Q1: how similar are the layers of standard and robust networks, within and between them?"""

from __future__ import annotations

from typing import Any

from experiments.lab.figures import mean_of, minus
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import ratio
from repsim_fast.analysis.grids import mean_by_distance

from .. import strongest
from ..recipes import Recipe
from ..robust_lab import RobustLab
from .common import accuracies, borders, stream, structure
from .seeds import all_seeds, baseline


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """Heat maps, indices a network, curves over layer distance, the seed-to-seed baseline."""
    standard, robust, found = all_seeds(lab)
    s, r = standard[0].name, robust[0].name
    report.heatmaps(
        "heatmaps",
        [found.grid(s, s), found.grid(r, r), found.grid(s, r)],
        "CKA of all pairs of layers, benign test images",
    )
    at = stream(found.layers[0])
    if at:
        report.heatmaps(
            "stream",
            [found.grid(s, s, at), found.grid(r, r, at), found.grid(s, r, at)],
            "What residual blocks hand on: standard, robust, one against the other; CKA",
        )
    rows = {
        v.name: {**accuracies(lab, v), **structure(found, v.name)} for v in (*standard, *robust)
    }
    report.table("structure", [{"network": name, **row} for name, row in rows.items()])
    under = {v.name: strongest.accuracy(lab, v.recipe) for v in (*standard, *robust)}
    known = {name: accuracy for name, accuracy in under.items() if accuracy is not None}
    if known:
        report.table("autoattack", [{"network": n, "AutoAttack": a} for n, a in known.items()])
    pairs = {"standard": (s, s), "robust": (r, r), "standard-robust": (s, r)}
    curves = {name: found.curve(mean_by_distance, pair) for name, pair in pairs.items()}
    report.lines(
        "by_distance", curves, xlabel="layers apart", ylabel="mean CKA",
        title="CKA by distance between layers (first seed)",
    )  # fmt: skip
    report.table(
        "by_distance",
        [
            {"layers apart": k, **{n: c[k] for n, c in curves.items()}}
            for k in range(len(curves["robust"]))
        ],
    )
    yardstick = baseline(lab)
    report.table(
        "same_layer",
        [
            {"networks": kind, "same-layer CKA": e, **yardstick.by_stage[kind]}
            for kind, e in yardstick.same_layer.items()
        ],
    )
    layer_curves = {k: found.curve(_mean_diagonal, *p) for k, p in yardstick.pairs.items()}
    report.lines(
        "same_layer", layer_curves, xlabel="layer", ylabel="CKA with the same layer",
        title="Same layer of two networks of different seeds or kinds",
        borders=borders(found.stages(s)),
    )  # fmt: skip
    means = {
        kind: mean_of([rows[v.name] for v in views])
        for kind, views in (("standard", standard), ("robust", robust))
    }
    differences = minus([rows[v.name] for v in robust], [rows[v.name] for v in standard])
    stage13 = ratio(means["robust"]["stage1-stage3"], means["standard"]["stage1-stage3"])
    report.table(
        "differences",
        [
            *({"robust against standard": f"{k}, difference", "value": e}
              for k, e in differences.items()),
            {"robust against standard": "stage1-stage3, ratio", "value": stage13},
        ],
    )  # fmt: skip
    return {
        "layers": len(found.layers[0]),
        "seeds": len(lab.preset.seeds),
        **means,
        "difference": differences,
        "robust / standard": {"stage1-stage3": stage13},
        "spread over seeds": yardstick.spread,
        "accuracy": {v.name: accuracies(lab, v) for v in (*standard, *robust)},
        "accuracy under AutoAttack": known,
        "same layer": yardstick.same_layer,
        "first seed": {"standard": rows[s], "robust": rows[r]},
    }


def measure(lab: RobustLab, recipe: Recipe) -> None:
    """What is measured of one network, to be on its card."""
    lab.accuracy(recipe)
    strongest.accuracy(lab, recipe)


def _mean_diagonal(*grids: Any) -> Any:
    return sum(grid.diagonal() for grid in grids) / len(grids)
