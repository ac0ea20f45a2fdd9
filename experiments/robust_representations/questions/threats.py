"""Q6: are networks robust against different threat models alike?"""

from __future__ import annotations

from itertools import combinations
from typing import Any

from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate, difference
from repsim_fast.analysis.grids import mean_same_layer

from ..recipes import Recipe
from ..robust_lab import RobustLab
from .common import structure
from .seeds import baseline, mean_of, usual

UNKNOWN = Estimate(float("nan"), float("nan"))


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """Same-layer CKA between networks trained against each threat model, and a standard one."""
    threats = lab.preset.threats
    views = _views(lab)
    found = lab.compare(views)
    names = [v.name for v in views]
    same = found.same_layer()
    report.matrix("same_layer", names, same, "Same-layer CKA between threat models")
    rows, standard = [], views[0].recipe
    gains: dict[str, Estimate] = {}
    for view in views:
        own = against = UNKNOWN
        if view.name != "standard":
            own, against = (
                lab.accuracy(recipe, view.recipe.threat)["robust"]
                for recipe in (view.recipe, standard)
            )
            gains[view.name] = difference(own, against)
        rows.append(
            {
                "trained against": view.name,
                "clean accuracy": lab.accuracy(view.recipe)["clean"],
                "accuracy under own threat": own,
                "of the standard network": against,
                "accuracy under linf": lab.accuracy(view.recipe)["robust"],
                "same-layer CKA with linf": found.estimate(
                    mean_same_layer, (view.name, threats[0])
                ),
                **structure(found, view.name),
            }
        )
    yardstick = baseline(lab, swept=True)
    rows += [
        {"trained against": f"{name}, spread over seeds", **yardstick.spread[kind]}
        for name, kind in (("standard", "standard"), (threats[0], "robust"))
    ]
    report.table("threats", rows)
    between = list(combinations(threats, 2))
    lp = [p for p in between if set(p) <= {"linf", "l2"}]
    mixed = [p for p in between if len(set(p) & {"linf", "l2"}) == 1]
    others = [view.name for view in views if view.recipe.seed != lab.preset.seeds[0]]
    groups = {
        "between threats": between,
        "linf with l2": lp,
        "lp with transformations": mixed,
        "with standard": [("standard", t) for t in threats],
        "seed to seed": list(combinations([threats[0], *others], 2)),
    }
    same_layer = mean_of(mean_same_layer)
    means = {name: found.estimate(same_layer, *pairs) for name, pairs in groups.items() if pairs}

    def above_standard(name: str) -> Estimate | None:
        """One group minus the pairs with the standard network, on the same images."""
        own, n = groups[name], len(groups[name])
        return found.estimate(
            lambda *grids: same_layer(*grids[:n]) - same_layer(*grids[n:]),
            *own, *groups["with standard"],
        ) if own else None  # fmt: skip

    report.table("groups", [{"pairs": n, "same-layer CKA": e} for n, e in means.items()])
    return {
        **{name: means.get(name) for name in groups},
        "above those with standard": {name: above_standard(name) for name in groups},
        "robustness gained": {threat: gains[threat] for threat in threats},
        "matrix": {"names": names, "same-layer CKA": same},
    }


def recipes(lab: RobustLab) -> list[Recipe]:
    """Networks of every threat model, and other seeds."""
    return [*usual(lab, swept=True), *(view.recipe for view in _views(lab))]


def _views(lab: RobustLab) -> list[View[Recipe]]:
    """A standard network, one of each threat model, and other seeds of the usual one."""
    usual_threat, *_ = lab.preset.threats
    return [
        View("standard", lab.standard(swept=True)),
        *(View(t, lab.recipe(threat=t, swept=True)) for t in lab.preset.threats),
        *(
            View(f"{usual_threat}, seed {s}", lab.robust(s, swept=True))
            for s in lab.preset.seeds[1:]
        ),
    ]
