"""Q4: weights one by one, or whole filters?"""

from __future__ import annotations

from typing import Any

from experiments.lab.figures import mean_of, minus
from experiments.lab.report import Report

from ..compact_lab import CompactLab, Way
from ..recipes import Recipe
from .common import accuracies, bars, of_seeds, write

WAYS: tuple[Way, ...] = ("magnitude", "filters")


def recipes(lab: CompactLab) -> list[Recipe]:
    """Both at each sparsity, from the robust network."""
    return [
        recipe
        for sparsity in lab.preset.filter_sparsities
        for way in WAYS
        for recipe in of_seeds(lab, lab.network, sparsity, way)
    ]


def run(lab: CompactLab, report: Report) -> dict[str, Any]:
    """Accuracies of networks with the same share of weights, or of filters, pruned."""
    measured = {
        (way, s): accuracies(lab, of_seeds(lab, lab.network, s, way))
        for s in lab.preset.filter_sparsities
        for way in WAYS
    }
    rows = [
        {"pruned": way, "sparsity": s, **lab.compact(of_seeds(lab, lab.network, s, way)[0])}
        for way, s in measured
    ]
    write(report, "filters", rows, list(measured.values()))
    means = {f"{way} {s:g}": mean_of(own) for (way, s), own in measured.items()}
    bars(report, "filters", means, "Weights against filters")
    sparsities = lab.preset.filter_sparsities
    return {
        "seeds": len(lab.preset.seeds),
        "means": means,
        "weights minus filters": {
            f"{s:g}": minus(measured["magnitude", s], measured["filters", s]) for s in sparsities
        },
        "most": f"{sparsities[-1]:g}",
    }
