"""Q2: must the robust objective be that of pre-training and of fine-tuning?"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from experiments.lab.figures import mean_of, minus
from experiments.lab.report import Report

from ..compact_lab import CompactLab
from ..recipes import STANDARD, Recipe
from .common import accuracies, bars, write


def _pairs(lab: CompactLab) -> dict[tuple[str, str], list[Recipe]]:
    """(objective before, objective after) -> networks pruned by magnitude at the focus."""
    preset = lab.preset
    objectives = dict.fromkeys((STANDARD, preset.objective, *preset.mixed))
    return {
        (before, after): [
            lab.pruned(
                lab.dense(replace(lab.network, objective=before), seed), preset.focus,
                objective=after,
            )
            for seed in preset.seeds
        ]
        for before in objectives
        for after in objectives
    }  # fmt: skip


def recipes(lab: CompactLab) -> list[Recipe]:
    """All pairs of objectives."""
    return [recipe for own in _pairs(lab).values() for recipe in own]


def run(lab: CompactLab, report: Report) -> dict[str, Any]:
    """Accuracies by objective of pre-training and of fine-tuning."""
    robust = lab.preset.objective
    measured = {pair: accuracies(lab, own) for pair, own in _pairs(lab).items()}
    rows = [{"pre-training": before, "fine-tuning": after} for before, after in measured]
    write(report, "objectives", rows, list(measured.values()))
    means = {f"{before}, {after}": mean_of(own) for (before, after), own in measured.items()}
    bars(report, "objectives", means, "Objectives of pre-training, fine-tuning")
    throughout = measured[robust, robust]
    return {
        "seeds": len(lab.preset.seeds),
        "pairs": means,
        "robust minus standard": minus(throughout, measured[STANDARD, STANDARD]),
        "minus standard before": minus(throughout, measured[STANDARD, robust]),
        "minus standard after": minus(throughout, measured[robust, STANDARD]),
    }
