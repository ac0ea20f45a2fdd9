"""Q4: what do width and depth do to cross-layer similarity?"""

from __future__ import annotations

from typing import Any

from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate, difference

from ..recipes import Recipe
from ..robust_lab import RobustLab
from .common import accuracies, structure
from .seeds import KINDS, baseline, usual


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """Structure of standard and robust networks over widths and over depths."""
    rows: dict[str, dict[str, Any]] = {}
    for view in _views(lab):
        # One comparison each: networks of different sizes share no batch of Grams.
        found = lab.compare([view])
        rows[view.name] = {**accuracies(lab, view), **structure(found, view.name)}
    yardstick = baseline(lab, swept=True)
    report.table(
        "structure",
        [
            *({"network": name, **row} for name, row in rows.items()),
            *(
                {"network": f"{lab.preset.architecture} {kind}, spread over seeds", **spread}
                for kind, spread in yardstick.spread.items()
            ),
        ],
    )
    for sweep, names in (("widths", lab.preset.widths), ("depths", lab.preset.depths)):
        curves = {
            f"{kind}, {index}": [rows[f"{n} {kind}"][index] for n in names]
            for kind in KINDS
            for index in ("mean off-diagonal", "block index")
        }
        report.lines(
            sweep, curves, x=list(names), xlabel="network", ylabel="index",
            title=f"Cross-layer structure over {sweep}",
        )  # fmt: skip
    trends = {
        "widths": {kind: _trend(rows, lab.preset.widths, kind) for kind in KINDS},
        "depths": {kind: _trend(rows, lab.preset.depths, kind) for kind in KINDS},
    }
    report.table(
        "trends",
        [
            {"sweep": sweep, "network": kind, "largest minus smallest": trend,
             "seed to seed": yardstick.between(kind)}
            for sweep, by_kind in trends.items() for kind, trend in by_kind.items()
        ],
    )  # fmt: skip
    return {
        "networks": rows, **trends,
        "seed to seed": {kind: yardstick.between(kind) for kind in KINDS},
    }  # fmt: skip


def recipes(lab: RobustLab) -> list[Recipe]:
    """Both kinds of every architecture, and other seeds."""
    return [*usual(lab, swept=True), *(view.recipe for view in _views(lab))]


def _views(lab: RobustLab) -> list[View[Recipe]]:
    return [
        View(f"{name} {kind}", lab.recipe(method, swept=True, architecture=name))
        for name in dict.fromkeys((*lab.preset.widths, *lab.preset.depths))
        for kind, method in zip(KINDS, ("standard", None), strict=True)
    ]


def _trend(rows: dict[str, Any], names: tuple[str, ...], kind: str) -> Estimate:
    """Mean off-diagonal CKA of the largest minus that of the smallest network."""
    small, large = (rows[f"{n} {kind}"]["mean off-diagonal"] for n in (names[0], names[-1]))
    return difference(large, small)
