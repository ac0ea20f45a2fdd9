"""Q3: do learned scores keep more than magnitude, and the more so the fewer weights are left?"""

from __future__ import annotations

from typing import Any

from experiments.lab.figures import Figures, mean_of, minus
from experiments.lab.report import Report

from ..compact_lab import ERA, CompactLab
from .common import accuracies, label, networks, of_seeds


def run(lab: CompactLab, report: Report) -> dict[str, Any]:
    """Accuracies of learned scores minus those of magnitude, over networks and sparsities."""
    preset = lab.preset
    gaps: dict[str, dict[float, list[Figures]]] = {}
    for network in networks(lab):
        gaps[label(network)] = {
            s: [
                minus([a], [b])
                for a, b in zip(
                    accuracies(lab, of_seeds(lab, network, s, "learned")),
                    accuracies(lab, of_seeds(lab, network, s)),
                    strict=True,
                )
            ]
            for s in preset.sparsities
        }
    report.table(
        "gaps",
        [
            {"network": name, "sparsity": s, **mean_of(own)}
            for name, by_sparsity in gaps.items() for s, own in by_sparsity.items()
        ],
    )  # fmt: skip
    report.lines(
        "gaps",
        {name: [mean_of(own[s])[ERA] for s in preset.sparsities] for name, own in gaps.items()},
        x=[1 / (1 - s) for s in preset.sparsities], xlabel="weights / weights kept",
        ylabel="era, learned minus magnitude", title="What learned scores gain",
    )  # fmt: skip
    together = {s: [f for own in gaps.values() for f in own[s]] for s in preset.sparsities}
    usual = gaps[label(lab.network)]
    return {
        "seeds": len(preset.seeds),
        "gaps": {f"{s:g}": mean_of(own) for s, own in together.items()},
        "usual": {f"{s:g}": mean_of(own) for s, own in usual.items()},
        "most": f"{preset.most:g}",
        "focus": f"{preset.focus:g}",
        "growth": minus(together[preset.most], together[preset.focus]),
    }
