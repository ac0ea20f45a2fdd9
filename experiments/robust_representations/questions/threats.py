"""Q6: are networks robust against different threat models alike?"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate
from repsim_fast.analysis.grids import mean_same_layer

from ..robust_lab import RobustLab
from .common import structure
from .seeds import baseline

UNKNOWN = Estimate(float("nan"), float("nan"))


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """Same-layer CKA between networks trained against each threat model, and a standard one."""
    threats = lab.preset.threats
    views = [View("standard", lab.standard())]
    views += [View(t, lab.recipe(threat=t)) for t in threats]
    # The baseline: the same threat model and other seeds, where there are some.
    others = [View(f"{threats[0]}, seed {s}", lab.robust(s)) for s in lab.preset.seeds[1:]]
    views += others
    found = lab.compare(views)
    names = [v.name for v in views]
    same = found.same_layer()
    report.matrix("same_layer", names, same, "Same-layer CKA between threat models")
    rows = []
    for view in views:
        own = lab.accuracy(view.recipe, view.recipe.threat) if view.name != "standard" else None
        rows.append(
            {
                "trained against": view.name,
                "clean accuracy": lab.accuracy(view.recipe)["clean"],
                "accuracy under own threat": own["robust"] if own else UNKNOWN,
                "accuracy under linf": lab.accuracy(view.recipe)["robust"],
                "same-layer CKA with linf": found.estimate(
                    mean_same_layer, (view.name, threats[0])
                ),
                **structure(found, view.name),
            }
        )
    yardstick = baseline(lab)
    rows += [
        {"trained against": f"{name}, spread over seeds", **yardstick.spread[kind]}
        for name, kind in (("standard", "standard"), (threats[0], "robust"))
    ]
    report.table("threats", rows)
    between = list(combinations(threats, 2))
    lp = [p for p in between if set(p) <= {"linf", "l2"}]
    mixed = [p for p in between if len(set(p) & {"linf", "l2"}) == 1]
    groups = {
        "between threats": between,
        "linf with l2": lp,
        "lp with transformations": mixed,
        "with standard": [("standard", t) for t in threats],
        "seed to seed": list(combinations([threats[0], *(v.name for v in others)], 2)),
    }
    means = {name: found.estimate(_mean_same, *pairs) for name, pairs in groups.items() if pairs}
    report.table("groups", [{"pairs": n, "same-layer CKA": e} for n, e in means.items()])
    return {
        **{name: means.get(name) for name in groups},
        "matrix": {"names": names, "same-layer CKA": same},
    }


def _mean_same(*grids: Any) -> float:
    return sum(map(mean_same_layer, grids)) / len(grids)
