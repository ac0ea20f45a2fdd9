"""Q7: in which order do layers converge during training?"""

from __future__ import annotations

from typing import Any

from experiments.lab.comparisons import Comparison
from experiments.lab.figures import mean_of, minus
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate, mean_over_seeds
from repsim_fast.analysis.grids import Array

from ..robust_lab import RobustLab
from .common import STAGES, borders, depth_gap, diagonal, stage_mean_of, stage_means, structure
from .seeds import KINDS, along_training, baseline

LEAD = "stage1 minus stage3"
CROSS = "mean off-diagonal"
UNKNOWN = Estimate(float("nan"), float("nan"))
# Untrained stages are unequally far from their end: how much of the way each has gone.
WAY = "stage1 minus stage3, share of the way"


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """CKA of each layer during training with the same layer in the end, for every seed."""
    epochs = (*lab.kept_epochs, lab.preset.epochs)
    rows: list[dict[str, Any]] = []
    paths: list[dict[str, Any]] = []
    for kind in KINDS:
        for seed in lab.preset.seeds:
            views, found = along_training(lab, kind, seed)
            last = views[-1].name
            rows += [
                {"network": kind, "seed": seed, "epoch": v.epoch,
                 **stage_means(found, v.name, last), LEAD: depth_gap(found, v.name, last),
                 WAY: _lead_of_way(found, v.name, last) if 0 in epochs else UNKNOWN}
                for v in views[:-1]
            ]  # fmt: skip
            paths += [
                {"network": kind, "seed": seed, "epoch": v.epoch, **structure(found, v.name)}
                for v in views
            ]
            if seed == lab.preset.seeds[0]:
                curves = {v.name: found.curve(diagonal, (v.name, last)) for v in views[:-1]}
                report.lines(
                    f"layers_{kind}", curves, xlabel="layer", ylabel="CKA with the trained network",
                    title=f"Layers during {kind} training", borders=borders(found.stages(last)),
                )  # fmt: skip
    means = {
        kind: {e: _means([r for r in rows if (r["network"], r["epoch"]) == (kind, e)])
               for e in epochs[:-1]}
        for kind in KINDS
    }  # fmt: skip
    # Whether training amplifies similarity across layers, or takes less of it away.
    structures = {
        kind: [mean_over_seeds([r[CROSS] for r in paths if (r["network"], r["epoch"]) == (kind, e)])
               for e in epochs]
        for kind in KINDS
    }  # fmt: skip
    report.table("structure", paths)
    report.lines(
        "structure", structures, x=list(epochs), xlabel="epoch", ylabel=f"{CROSS} CKA",
        title=f"Cross-layer similarity during training, {len(lab.preset.seeds)} seeds",
    )  # fmt: skip
    # How near an epoch is to the end says little unless another seed's network is further away.
    other = baseline(lab).by_stage
    report.table(
        "stages",
        [
            *rows,
            *({"network": kind, "seed": "mean", "epoch": e, **row}
              for kind in KINDS for e, row in means[kind].items()),
            *({"network": kind, "seed": "another seed", "epoch": epochs[-1], **other[pair]}
              for kind in KINDS if (pair := f"{kind}-{kind}") in other),
        ],
    )  # fmt: skip
    report.lines(
        "stages",
        {
            f"{kind} {stage}": [row[stage] for row in means[kind].values()]
            for kind in KINDS
            for stage in STAGES
        },
        x=list(epochs[:-1]), xlabel="epoch", ylabel="CKA with the trained network",
        title=f"Stages during training, {len(lab.preset.seeds)} seeds",
    )  # fmt: skip
    return {
        "epochs": epochs,
        "trained minus untrained": {kind: _gained(paths, kind, epochs[-1]) for kind in KINDS},
        **{kind: {"lead of stage1 over stage3": {e: row[LEAD] for e, row in means[kind].items()},
                  "lead in share of the way": {e: row[WAY] for e, row in means[kind].items()}}
           for kind in KINDS},
        CROSS: structures,
        "another seed": {kind: other.get(f"{kind}-{kind}") for kind in KINDS},
    }  # fmt: skip


def _gained(paths: list[dict[str, Any]], kind: str, last: int) -> Estimate | None:
    """Cross-layer similarity of trained networks minus their own before training."""
    own = {e: [{CROSS: r[CROSS]} for r in paths if (r["network"], r["epoch"]) == (kind, e)]
           for e in (0, last)}  # fmt: skip
    return minus(own[last], own[0])[CROSS] if own[0] else None


def _lead_of_way(found: Comparison, view: str, last: str) -> Estimate:
    """Share of its way from the untrained to the trained network that stage 1 has gone, minus that
    of stage 3; a way's length is 1 - CKA."""
    first, third = (stage_mean_of(found.stages(last), s) for s in (STAGES[0], STAGES[-1]))

    def lead(untrained: Array, now: Array) -> float:
        gone = [(s(now) - s(untrained)) / (1 - s(untrained)) for s in (first, third)]
        return gone[0] - gone[1]

    return found.estimate(lead, ("epoch 0", last), (view, last))


def _means(rows: list[dict[str, Any]]) -> dict[str, Estimate]:
    return mean_of([{key: row[key] for key in (*STAGES, LEAD, WAY)} for row in rows])
