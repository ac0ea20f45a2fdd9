"""Q7: how alike are networks of different selectivity, and does it explain robust ones?"""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Estimate, over_seeds
from repsim_fast.analysis.grids import Array, mean_same_layer

from ..recipes import Recipe
from ..selectivity_lab import SelectivityLab
from .common import layers_selectivity
from .robust_training import methods


def run(lab: SelectivityLab, report: Report) -> dict[str, Any]:
    """Same-layer CKA between alphas and between seeds; layers' CKA and selectivity, robust."""
    preset = lab.preset
    first = preset.seeds[0]
    names = {alpha: f"alpha {alpha:g}" for alpha in preset.alphas}
    views = [View(name, lab.recipe(alpha, seed=first)) for alpha, name in names.items()]
    others = [
        View(f"alpha 0, seed {seed}", lab.recipe(seed=seed))
        for seed in preset.seeds if seed != first
    ]  # fmt: skip
    found = lab.compare([*views, *others])
    same = found.same_layer()
    report.matrix(
        "same_layer", [v.name for v in (*views, *others)], same, "Same-layer CKA between alphas"
    )
    seeds = list(combinations([names[0.0], *(v.name for v in others)], 2))
    groups = {
        "low with high": [(names[preset.low], names[preset.high])],
        "low with 0": [(names[preset.low], names[0.0])],
        "high with 0": [(names[preset.high], names[0.0])],
        "seed to seed": seeds,
    }
    means = {name: found.estimate(_mean_same, *pairs) for name, pairs in groups.items() if pairs}
    below = None
    if seeds:
        below = found.estimate(
            lambda g, *others: _mean_same(*others) - mean_same_layer(g),
            groups["low with high"][0], *seeds,
        )  # fmt: skip
    report.table("groups", [{"pairs": name, "same-layer CKA": e} for name, e in means.items()])
    explained = _explained(lab, report)
    return {**means, "seed to seed minus low with high": below, "explained": explained}


def _explained(lab: SelectivityLab, report: Report) -> dict[str, Estimate]:
    """Rank correlation over layers of how far selectivity and representations differ."""
    _, attacked, mixed = methods(lab)
    rows, found = [], {}
    for method in (attacked, mixed):
        correlations = []
        for seed in lab.preset.seeds:
            pair = [lab.recipe(seed=seed), lab.recipe(method=method, seed=seed)]
            apart, moved, names = _by_layer(lab, pair)
            correlations.append(_rank_correlation(apart, moved))
            rows += [
                {"training": method, "network": seed, "layer": name,
                 "1 - CKA": Estimate(float(a), float("nan")),
                 "change of selectivity": Estimate(float(m), float("nan"))}
                for name, a, m in zip(names, apart, moved, strict=True)
            ]  # fmt: skip
        known = [value for value in correlations if value == value]
        found[method] = over_seeds(known) if known else Estimate(float("nan"), float("nan"))
    report.table("layers", rows)
    return {"attacked": found[attacked], "mixed": found[mixed]}


def _by_layer(lab: SelectivityLab, pair: list[Recipe]) -> tuple[Array, Array, list[str]]:
    """1 - CKA and |change of selectivity| of each layer of a standard and a robust network."""
    views = [View(name, recipe) for name, recipe in zip(("standard", "robust"), pair, strict=True)]
    grid = lab.compare(views).grid("standard", "robust")
    standard, robust = (layers_selectivity(lab, recipe) for recipe in pair)
    names = list(grid.rows)
    moved = np.array([abs(robust[name] - standard[name]) for name in names])
    return 1 - grid.value.diagonal(), moved, names


def _rank_correlation(a: Array, b: Array) -> float:
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    return float(spearmanr(a, b).statistic)


def _mean_same(*grids: Any) -> float:
    return sum(map(mean_same_layer, grids)) / len(grids)
