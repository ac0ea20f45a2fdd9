"""Q5: do other training methods and radii give the same structure?"""

from __future__ import annotations

from typing import Any

from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.grids import mean_off_diagonal, mean_same_layer

from ..robust_lab import RobustLab
from .common import accuracies, structure
from .seeds import baseline


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """PGD-AT at several radii, TRADES, single-step training and standard training compared."""
    views = [View("standard", lab.standard())]
    views += [View(f"PGD x{r:g}", lab.recipe(radius=r)) for r in lab.preset.radii]
    views += [View("TRADES", lab.recipe("trades")), View("N-FGSM", lab.recipe("n-fgsm"))]
    views += [View(f"PGD x1, seed {s}", lab.robust(s)) for s in lab.preset.seeds[1:]]
    found = lab.compare(views)
    rows = {v.name: {**accuracies(lab, v), **structure(found, v.name)} for v in views}
    for view in views:
        rows[view.name]["same-layer CKA with PGD x1"] = found.estimate(
            mean_same_layer, (view.name, "PGD x1")
        )
    yardstick = baseline(lab)
    report.table(
        "structure",
        [
            *({"training": n, **row} for n, row in rows.items()),
            *(
                {"training": f"{kind}, spread over seeds", **spread}
                for kind, spread in yardstick.spread.items()
            ),
        ],
    )
    names = [v.name for v in views]
    same = found.same_layer()
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
    trend = found.estimate(
        lambda g, h: mean_off_diagonal(h) - mean_off_diagonal(g),
        (low, low), (high, high),
    )  # fmt: skip
    seeds = yardstick.between("robust")
    report.table("trend", [{"largest minus smallest radius": trend, "seed to seed": seeds}])
    return {
        "networks": rows,
        "matrix": {"names": names, "same-layer CKA": same},
        "largest minus smallest radius": trend,
        "seed to seed": seeds,
        "over radii": [rows[n]["mean off-diagonal"] for n in sweep],
    }
