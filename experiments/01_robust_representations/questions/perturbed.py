"""Q2: how far do adversarial inputs move each layer of standard and of robust networks?"""

from __future__ import annotations

from typing import Any

from ..lab import Lab, View
from ..report import Report
from .common import borders, depth_gap, diagonal, stage_means


def run(lab: Lab, report: Report) -> dict[str, Any]:
    """CKA of a layer on benign and on attacked images, over attack strengths."""
    threat = lab.preset.threats[0]
    rows, curves, means, falls = [], {}, {}, {}
    stages: tuple[str, ...] = ()
    for kind, recipe in (("standard", lab.standard()), ("robust", lab.robust())):
        benign = View(f"{kind} benign", recipe)
        attacked = [
            View(f"{kind} x{k:g}", recipe, threat=threat, strength=k) for k in lab.preset.strengths
        ]
        found = lab.compare([benign, *attacked])
        stages = found.stages(benign.name)
        for view in attacked:
            pair = (benign.name, view.name)
            curve = found.curve(diagonal, pair)
            curves[view.name] = curve
            by_stage = stage_means(found, *pair)
            accuracy = lab.accuracy(recipe, threat, view.strength)
            rows.append(
                {"network": kind, "radius": view.strength, "accuracy": accuracy["robust"],
                 **by_stage, "last layer": curve[-1]}
            )  # fmt: skip
            means[view.name] = {**by_stage, "last layer": curve[-1]}
            falls[view.name] = depth_gap(found, *pair)
    report.table("stages", rows)
    report.table(
        "layers", [{"layer": i, **{n: c[i] for n, c in curves.items()}} for i in range(len(stages))]
    )
    report.lines(
        "layers", curves, xlabel="layer", ylabel="CKA, benign with adversarial",
        title=f"Same network, benign and {threat} images (multiples of the training radius)",
        borders=borders(stages),
    )  # fmt: skip
    return {"means": means, "fall with depth": falls, "at": "x1", "rows": rows}
