"""Q1: for which radii and amplitudes does training against one step collapse?"""

from __future__ import annotations

from typing import Any

from experiments.lab.report import Report
from repsim_fast.analysis.estimates import difference

from ..overfitting_lab import OverfittingLab
from ..recipes import Recipe
from ..regimes import regimes
from .cells import cell

# Of the networks of a cell that collapsed.
MOST = 0.5


def run(lab: OverfittingLab, report: Report) -> dict[str, Any]:
    """Accuracies of every cell; onset and end of the collapse at each radius."""
    rows, found = [], {}
    for eps, betas in lab.preset.grid:
        cells = {}
        for beta in betas:
            own = [lab.scores(lab.recipe(eps=eps, beta=beta, seed=s)) for s in lab.preset.seeds]
            cells[beta] = cell(lab, own)
            rows += [
                {"eps": f"{eps:g}", "beta": f"{beta:g}", "seed": f"{seed}", **one}
                for seed, one in zip(lab.preset.seeds, own, strict=True)
            ]
        found[f"{eps:g}"] = _summary(eps, list(betas), cells)
    report.table("scores", rows)
    for kind in ("clean", "robust"):
        report.lines(
            kind,
            {f"eps {eps}": list(one[kind].values()) for eps, one in found.items()},
            x={f"eps {eps}": [float(b) for b in one[kind]] for eps, one in found.items()},
            xlabel="amplitude of the feature, 1/255",
            ylabel=f"{kind} accuracy",
            title="Training against one step, with an injected feature",
        )
    return {"radii": found, "seeds": len(lab.preset.seeds)}


def _summary(eps: float, betas: list[float], cells: dict[float, dict[str, Any]]) -> dict[str, Any]:
    gone = [cells[beta]["collapsed"] >= MOST for beta in betas]
    borders = regimes(betas, gone)
    summary: dict[str, Any] = {
        kind: {f"{beta:g}": cells[beta][kind] for beta in betas}
        for kind in ("clean", "robust", "collapsed")
    }
    for name, bracket in (("onset", borders.onset), ("end", borders.end)):
        summary[f"{name} / eps"] = None if bracket is None else [b / eps for b in bracket]
    if borders.onset is not None:
        before, after = (cells[beta] for beta in borders.onset)
        summary["jump of clean accuracy"] = difference(after["clean"], before["clean"])
        if borders.onset[0] > betas[0]:
            first = cells[betas[0]]["robust"]
            summary["rise of robust accuracy"] = difference(before["robust"], first)
    return summary


def recipes(lab: OverfittingLab) -> list[Recipe]:
    """Every cell, of every seed."""
    return [
        lab.recipe(eps=eps, beta=beta, seed=seed)
        for seed in lab.preset.seeds
        for eps, betas in lab.preset.grid
        for beta in betas
    ]
