"""Q5: do other training methods and radii give the same structure?"""

from __future__ import annotations

from typing import Any

import numpy as np

from .. import indices
from ..lab import Lab, View
from ..report import Report
from .common import accuracies, structure


def run(lab: Lab, report: Report) -> dict[str, Any]:
    """PGD-AT at several radii, TRADES, single-step training and standard training compared."""
    views = [View("standard", lab.standard())]
    views += [View(f"PGD x{r:g}", lab.recipe(radius=r)) for r in lab.preset.radii]
    views += [View("TRADES", lab.recipe("trades")), View("N-FGSM", lab.recipe("n-fgsm"))]
    found = lab.compare(views)
    rows = {v.name: {**accuracies(lab, v), **structure(found, v.name)} for v in views}
    names = [v.name for v in views]
    same = np.array(
        [[found.estimate(indices.mean_same_layer, (a, b)).value for b in names] for a in names]
    )
    for name in names:
        rows[name]["same-layer CKA with PGD x1"] = found.estimate(
            indices.mean_same_layer, (name, "PGD x1")
        )
    report.table("structure", [{"training": n, **row} for n, row in rows.items()])
    report.matrix("same_layer", names, same, "Same-layer CKA between training methods")
    sweep = ["standard", *(f"PGD x{r:g}" for r in lab.preset.radii)]
    report.lines(
        "radii",
        {
            index: [rows[n][index] for n in sweep]
            for index in ("mean off-diagonal", "block index", "stage1-stage3")
        },
        x=[0.0, *lab.preset.radii], xlabel="training radius, multiples of the usual",
        ylabel="index", title="Cross-layer structure over training radii",
    )  # fmt: skip
    low, high = f"PGD x{lab.preset.radii[0]:g}", f"PGD x{lab.preset.radii[-1]:g}"
    return {
        "networks": rows,
        "largest minus smallest radius": found.estimate(
            lambda g, h: indices.mean_off_diagonal(h) - indices.mean_off_diagonal(g),
            (low, low), (high, high),
        ),
        "over radii": [rows[n]["mean off-diagonal"] for n in sweep],
    }  # fmt: skip
