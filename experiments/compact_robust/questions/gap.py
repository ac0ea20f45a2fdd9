"""Q3: do learned scores keep more than magnitude, and the more so the fewer weights are left?"""

from __future__ import annotations

from typing import Any

from experiments.lab.claims import SIGMAS
from experiments.lab.figures import Figures, mean_of, minus
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate

from ..compact_lab import ERA, CompactLab
from ..presets import Network
from .common import accuracies, label, networks, of_seeds

Pair = tuple[Figures, Figures]
"""By learned scores and by magnitude, of the same pre-trained network."""


def run(lab: CompactLab, report: Report) -> dict[str, Any]:
    """Accuracies of learned scores minus those of magnitude, over networks and sparsities."""
    preset = lab.preset
    measured = {label(network): _pairs(lab, network) for network in networks(lab)}
    gaps = {
        name: {s: [minus([a], [b]) for a, b in own] for s, own in by_sparsity.items()}
        for name, by_sparsity in measured.items()
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
    last = [pair for by_sparsity in measured.values() for pair in by_sparsity[preset.most]]
    chance = 1 / len(lab.train_data.classes)
    return {
        "seeds": len(preset.seeds),
        "networks": len(last),
        "above chance": sum(any(_exceeds(own[ERA], chance) for own in pair) for pair in last),
        "gaps": {f"{s:g}": mean_of(own) for s, own in together.items()},
        "usual": {f"{s:g}": mean_of(own) for s, own in usual.items()},
        "most": f"{preset.most:g}",
        "focus": f"{preset.focus:g}",
        "growth": minus(together[preset.most], together[preset.focus]),
    }


def _pairs(lab: CompactLab, network: Network) -> dict[float, list[Pair]]:
    """By sparsity, one a seed."""
    return {
        s: list(
            zip(
                accuracies(lab, of_seeds(lab, network, s, "learned")),
                accuracies(lab, of_seeds(lab, network, s)),
                strict=True,
            )
        )
        for s in lab.preset.sparsities
    }


def _exceeds(found: Estimate, value: float) -> bool:
    return found.value > value + SIGMAS * found.standard_error
