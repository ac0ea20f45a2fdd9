"""Q1: how accurate, robust and verifiably robust are networks of each sparsity?"""

from __future__ import annotations

from typing import Any

from experiments.lab.figures import Figures, mean_of
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate, mean_over_seeds, ratio

from ..compact_lab import ERA, CompactLab, Way
from ..recipes import Recipe
from ..thresholds import MEASURABLE
from .common import ACCURACIES, accuracies, label, networks, of_seeds, write

WAYS: tuple[Way, ...] = ("magnitude", "learned")


def recipes(lab: CompactLab) -> list[Recipe]:
    """All networks at all sparsities, in the order in which questions need them."""
    at = (0.0, *lab.preset.sparsities)
    return [
        recipe
        for network in networks(lab)
        for sparsity in at
        for way in WAYS
        for recipe in of_seeds(lab, network, sparsity, way)
    ]


def run(lab: CompactLab, report: Report) -> dict[str, Any]:
    """Accuracies over sparsity, and what is kept of them at tenfold compression."""
    preset = lab.preset
    at = (0.0, *preset.sparsities)
    rows, measured, curves = [], [], {}
    kept: dict[str, list[Figures]] = {way: [] for way in WAYS}
    dense = {}
    for network in networks(lab):
        before = accuracies(lab, of_seeds(lab, network))
        dense[label(network)] = mean_of(before)
        for way in WAYS:
            own = [before if not s else accuracies(lab, of_seeds(lab, network, s, way)) for s in at]
            curves[f"{label(network)}, {way}"] = [mean_of(figures)[ERA] for figures in own]
            rows += [{"network": label(network), "scores": way, "sparsity": s} for s in at]
            measured += own
            kept[way] += [
                {name: ratio(a[name], b[name]) for name in ACCURACIES if _counts(b[name])}
                for a, b in zip(own[at.index(preset.focus)], before, strict=True)
            ]
    write(report, "accuracies", rows, measured)
    report.lines(
        "era", curves, x=[1 / (1 - s) for s in at], xlabel="weights / weights kept",
        ylabel="era", title="Empirically robust accuracy over compression",
    )  # fmt: skip
    means = {way: {name: _mean(own, name) for name in ACCURACIES} for way, own in kept.items()}
    report.table(
        "kept",
        [
            {"scores": way, "accuracy": name, f"kept at sparsity {preset.focus:g}": e,
             "of networks": sum(name in figures for figures in kept[way])}
            for way, own in means.items() for name, e in own.items() if e is not None
        ],
    )  # fmt: skip
    report.table(
        "sizes",
        [
            {"network": label(network), "scores": way, "sparsity": s,
             **lab.compact(of_seeds(lab, network, s, way)[0])}
            for network in networks(lab) for way in WAYS for s in preset.sparsities
        ],
    )  # fmt: skip
    return {"seeds": len(preset.seeds), "dense": dense, "kept": means}


def _counts(estimate: Estimate) -> bool:
    """Whether there is something to keep."""
    return estimate.value >= MEASURABLE


def _mean(networks: list[Figures], name: str) -> Estimate | None:
    """Over all networks where there was something to keep."""
    known = [figures[name] for figures in networks if name in figures]
    return mean_over_seeds(known) if known else None
