"""Q2: how far do adversarial inputs move each layer of standard and of robust networks?"""

from __future__ import annotations

from typing import Any

from experiments.lab.comparisons import Comparison
from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate, difference, mean_over_seeds

from ..robust_lab import RobustLab
from .common import STAGES, borders, depth_gap, diagonal, stage_means
from .seeds import KINDS, recipes

USUAL = 1.0  # the radius at which all seeds are attacked, that of training


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """CKA of a layer on benign and on attacked images: over strengths, and over seeds at one."""
    rows, curves, means, falls = [], {}, {}, {}
    stages: tuple[str, ...] = ()
    for kind in KINDS:
        at_usual = []
        for seed in lab.preset.seeds:
            first = seed == lab.preset.seeds[0]
            strengths = lab.preset.strengths if first else (USUAL,)
            found = _compared(lab, kind, seed, strengths)
            stages = found.stages("benign")
            for k in strengths:
                pair = ("benign", f"x{k:g}")
                own = {**stage_means(found, *pair), "last layer": found.curve(diagonal, pair)[-1]}
                accuracy = lab.accuracy(recipes(lab, seed)[kind], lab.preset.threats[0], k)
                rows.append(
                    {"network": kind, "seed": seed, "radius": k,
                     "accuracy": accuracy["robust"], **own}
                )  # fmt: skip
                if first:
                    curves[f"{kind} x{k:g}"] = found.curve(diagonal, pair)
                if k == USUAL:
                    at_usual.append({**own, "fall": depth_gap(found, *pair)})
        over = {
            key: mean_over_seeds([e[key] for e in at_usual])
            for key in (*STAGES, "last layer", "fall")
        }
        falls[kind] = over.pop("fall")
        means[kind] = over
    _write(lab, report, rows, curves, means, stages)
    return {
        "radius": USUAL,
        "means": means,
        "fall with depth": {
            **falls, "standard minus robust": difference(falls["standard"], falls["robust"])
        },
        "rows": rows,
    }  # fmt: skip


def _compared(lab: RobustLab, kind: str, seed: int, strengths: tuple[float, ...]) -> Comparison:
    recipe, threat = recipes(lab, seed)[kind], lab.preset.threats[0]
    attacked = [View(f"x{k:g}", recipe, threat=threat, strength=k) for k in strengths]
    return lab.compare([View("benign", recipe), *attacked])


def _write(
    lab: RobustLab,
    report: Report,
    rows: list[dict[str, Any]],
    curves: dict[str, list[Estimate]],
    means: dict[str, dict[str, Estimate]],
    stages: tuple[str, ...],
) -> None:
    report.table("stages", rows)
    report.table("over_seeds", [{"network": kind, "radius": USUAL, **own} for kind, own in
                                means.items()])  # fmt: skip
    report.table(
        "layers", [{"layer": i, **{n: c[i] for n, c in curves.items()}} for i in range(len(stages))]
    )
    report.lines(
        "layers", curves, xlabel="layer", ylabel="CKA, benign with adversarial",
        title=f"Same network, benign and {lab.preset.threats[0]} images "
        "(multiples of the training radius)",
        borders=borders(stages),
    )  # fmt: skip
