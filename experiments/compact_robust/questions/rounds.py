"""Q5: all at once, or round by round?"""

from __future__ import annotations

from typing import Any

from experiments.lab.figures import mean_of, minus
from experiments.lab.report import Report

from ..compact_lab import CompactLab, Way
from ..recipes import Recipe
from .common import accuracies, bars, of_seeds, write

WAYS: tuple[Way, ...] = ("magnitude", "iterative")


def recipes(lab: CompactLab) -> list[Recipe]:
    """Both at the focus and the highest sparsity, from the robust network."""
    return [
        recipe
        for sparsity in _sparsities(lab)
        for way in WAYS
        for recipe in of_seeds(lab, lab.network, sparsity, way)
    ]


def _sparsities(lab: CompactLab) -> tuple[float, ...]:
    return tuple(dict.fromkeys((lab.preset.focus, lab.preset.most)))


def run(lab: CompactLab, report: Report) -> dict[str, Any]:
    """Accuracies after one round and after several, with as many epochs of fine-tuning."""
    measured = {
        (way, s): accuracies(lab, of_seeds(lab, lab.network, s, way))
        for s in _sparsities(lab)
        for way in WAYS
    }
    names = {"magnitude": "one shot", "iterative": "iterative"}
    rows = [{"pruned": names[way], "sparsity": s} for way, s in measured]
    write(report, "rounds", rows, list(measured.values()))
    means = {f"{names[way]} {s:g}": mean_of(own) for (way, s), own in measured.items()}
    bars(report, "rounds", means, "One shot against iterative")
    return {
        "seeds": len(lab.preset.seeds),
        "means": means,
        "iterative minus one shot": {
            f"{s:g}": minus(measured["iterative", s], measured["magnitude", s])
            for s in _sparsities(lab)
        },
        "most": f"{lab.preset.most:g}",
    }
