"""Q8: do CCA, SVCCA, PWCCA and Procrustes rank pairs of layers as CKA does?"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import nn

from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast import Grid, models
from repsim_fast.analysis.estimates import jackknife, jackknife_error, mean_over_seeds
from repsim_fast.analysis.grids import Array, rank_correlation

from ..robust_lab import RobustLab
from . import pooled
from .seeds import KINDS, recipes

OTHERS = tuple(name for name in pooled.MEASURES if name != "cka")
AGREEMENT = "rank correlation with CKA"


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """Grids of five measures on pooled features, and rank correlations with that of CKA."""
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        for seed in lab.preset.seeds:
            layers, grids, left_out = pooled.grids(lab, View(kind, recipes(lab, seed)[kind]))
            rows += [
                {"network": kind, "seed": seed, "measure": name, AGREEMENT: jackknife(
                    _agreement(grids, name), [_agreement(g, name) for g in left_out]
                )}
                for name in OTHERS
            ]  # fmt: skip
            if seed == lab.preset.seeds[0]:
                _show(report, kind, layers, grids, left_out)
    found = {
        kind: {
            name: mean_over_seeds(
                [r[AGREEMENT] for r in rows if (r["network"], r["measure"]) == (kind, name)]
            )
            for name in OTHERS
        }
        for kind in KINDS
    }
    rows += [
        {"network": kind, "seed": "mean", "measure": name, AGREEMENT: mean}
        for kind, own in found.items() for name, mean in own.items()
    ]  # fmt: skip
    report.table("rank_correlations", rows)
    return {AGREEMENT: found, "images": pooled.n_images(lab), "seeds": len(lab.preset.seeds)}


def check(lab: RobustLab) -> None:
    """Before hours are spent: canonical correlations need more images than features of a pair.

    Raises:
        ValueError: There are too few test images for the network.
    """
    model = models.build(lab.preset.architecture, num_classes=10)
    channels = max(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    # Also of the images without one group of them.
    groups = pooled.GROUPS
    least = -(-2 * channels * groups // (groups - 1)) + groups
    if pooled.n_images(lab) < least:
        raise ValueError(
            f"question 8 needs {least} test images for the {channels} channels of "
            f"{lab.preset.architecture}, got {pooled.n_images(lab)}"
        )


def _show(
    report: Report,
    kind: str,
    layers: tuple[str, ...],
    grids: dict[str, Array],
    left_out: list[dict[str, Array]],
) -> None:
    errors = {name: jackknife_error(np.stack([g[name] for g in left_out])) for name in grids}
    report.heatmaps(
        f"grids_{kind}",
        [Grid(name, name, layers, layers, g, errors[name], name) for name, g in grids.items()],
        f"{kind} network, pooled features, five measures",
    )


def _agreement(grids: dict[str, Array], name: str) -> float:
    cells = np.tril_indices(len(grids[name]), -1)
    return rank_correlation(grids["cka"][cells], grids[name][cells])
