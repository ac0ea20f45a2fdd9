"""Q6: are networks robust against different threat models alike?"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from .. import indices
from ..lab import Lab, View
from ..report import Report
from .common import structure


def run(lab: Lab, report: Report) -> dict[str, Any]:
    """Same-layer CKA between networks trained against each threat model, and a standard one."""
    threats = lab.preset.threats
    views = [View("standard", lab.standard())]
    views += [View(t, lab.recipe(threat=t)) for t in threats]
    # The baseline of the same threat model and another seed, where there is one.
    if len(lab.preset.seeds) > 1:
        views.append(View(f"{threats[0]}, other seed", lab.robust(lab.preset.seeds[1])))
    found = lab.compare(views)
    names = [v.name for v in views]
    same = np.array(
        [[found.estimate(indices.mean_same_layer, (a, b)).value for b in names] for a in names]
    )
    report.matrix("same_layer", names, same, "Same-layer CKA between threat models")
    rows = []
    for view in views:
        own = lab.accuracy(view.recipe, view.recipe.threat) if view.name != "standard" else None
        rows.append(
            {
                "trained against": view.name,
                "clean accuracy": lab.accuracy(view.recipe)["clean"],
                "accuracy under own threat": own["robust"] if own else "",
                "accuracy under linf": lab.accuracy(view.recipe)["robust"],
                "same-layer CKA with linf": found.estimate(
                    indices.mean_same_layer, (view.name, threats[0])
                ),
                **structure(found, view.name),
            }
        )
    report.table("threats", rows)
    between = list(combinations(threats, 2))
    lp = [p for p in between if set(p) <= {"linf", "l2"}]
    mixed = [p for p in between if len(set(p) & {"linf", "l2"}) == 1]
    to_standard = [("standard", t) for t in threats]
    return {
        "between threats": found.estimate(_mean_same, *between),
        "linf with l2": found.estimate(_mean_same, *lp) if lp else None,
        "lp with transformations": found.estimate(_mean_same, *mixed) if mixed else None,
        "with standard": found.estimate(_mean_same, *to_standard),
        "seed to seed": found.estimate(_mean_same, (threats[0], names[-1]))
        if len(lab.preset.seeds) > 1
        else None,
        "matrix": {"names": names, "same-layer CKA": same},
    }


def _mean_same(*grids: Any) -> float:
    return sum(map(indices.mean_same_layer, grids)) / len(grids)
