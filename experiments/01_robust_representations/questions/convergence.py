"""Q7: in which order do layers converge during training?"""

from __future__ import annotations

from typing import Any

from ..lab import Lab, View
from ..report import Report
from .common import STAGES, borders, depth_gap, diagonal, stage_means


def run(lab: Lab, report: Report) -> dict[str, Any]:
    """CKA of each layer during training with the same layer in the end."""
    epochs = (*lab.kept_epochs, lab.preset.epochs)
    rows, found_by = [], {}
    for kind, recipe in (("standard", lab.standard()), ("robust", lab.robust())):
        views = [View(f"epoch {e}", recipe, epoch=e) for e in epochs]
        found = lab.compare(views)
        last = views[-1].name
        curves = {v.name: found.curve(diagonal, (v.name, last)) for v in views[:-1]}
        report.lines(
            f"layers_{kind}", curves, xlabel="layer", ylabel="CKA with the trained network",
            title=f"Layers during {kind} training", borders=borders(found.stages(last)),
        )  # fmt: skip
        lead = {}
        for v in views[:-1]:
            rows.append({"network": kind, "epoch": v.epoch, **stage_means(found, v.name, last)})
            lead[str(v.epoch)] = depth_gap(found, v.name, last)
        found_by[kind] = {"lead of stage1 over stage3": lead}
    report.table("stages", rows)
    report.lines(
        "stages",
        {
            f"{kind} {stage}": [r[stage] for r in rows if r["network"] == kind]
            for kind in ("standard", "robust")
            for stage in STAGES
        },
        x=list(epochs[:-1]), xlabel="epoch", ylabel="CKA with the trained network",
        title="Stages during training",
    )  # fmt: skip
    return {"epochs": epochs, **found_by}
