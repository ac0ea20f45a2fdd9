"""Q5: do other training methods and radii give the same structure?"""

from __future__ import annotations

from typing import Any

from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.grids import mean_off_diagonal, mean_same_layer

from ..recipes import Recipe
from ..robust_lab import RobustLab
from .common import accuracies, structure
from .seeds import baseline
from .seeds import usual as usual_networks

METHODS = {"adversarial": "PGD", "trades": "TRADES", "n-fgsm": "N-FGSM"}


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """The usual robust training at several radii, the other methods, and standard training."""
    usual, views = METHODS[lab.preset.robust], _views(lab)
    reference = f"{usual} x1"
    found = lab.compare(views)
    rows = {v.name: {**accuracies(lab, v), **structure(found, v.name)} for v in views}
    for view in views:
        rows[view.name][f"same-layer CKA with {reference}"] = found.estimate(
            mean_same_layer, (view.name, reference)
        )
    yardstick = baseline(lab, swept=True)
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
    sweep = ["standard", *(f"{usual} x{r:g}" for r in lab.preset.radii)]
    report.lines(
        "radii",
        {
            index: [rows[n][index] for n in sweep]
            for index in ("mean off-diagonal", "block index", "stage1-stage3")
        },
        x=[0.0, *lab.preset.radii], xlabel="training radius, multiples of the usual",
        ylabel="index", title="Cross-layer structure over training radii",
    )  # fmt: skip
    low, high = (f"{usual} x{lab.preset.radii[i]:g}" for i in (0, -1))
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


def recipes(lab: RobustLab) -> list[Recipe]:
    """Networks of every method and radius, and other seeds."""
    return [*usual_networks(lab, swept=True), *(view.recipe for view in _views(lab))]


def _views(lab: RobustLab) -> list[View[Recipe]]:
    usual = METHODS[lab.preset.robust]
    others = {method: name for method, name in METHODS.items() if name != usual}
    return [
        View("standard", lab.standard(swept=True)),
        *(View(f"{usual} x{r:g}", lab.recipe(radius=r, swept=True)) for r in lab.preset.radii),
        *(View(name, lab.recipe(method, swept=True)) for method, name in others.items()),
        *(View(f"{usual} x1, seed {s}", lab.robust(s, swept=True)) for s in lab.preset.seeds[1:]),
    ]
