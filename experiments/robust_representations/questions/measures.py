"""Q8: do CCA, SVCCA, PWCCA and Procrustes rank pairs of layers as CKA does?"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from torch import nn

from repsim_fast import models
from repsim_fast.capture import Capture
from repsim_fast.comparison.grid import Grid
from repsim_fast.similarity import UndefinedError, grid, measure_names, prepare

from ..comparing import is_paper_layer
from ..indices import Matrix, jackknife, jackknife_errors, mean_over_seeds, spearman
from ..lab import Lab, View
from ..networks import digest
from ..report import Report
from .seeds import KINDS, recipes

# The paper's: canonical correlations, 20 principal directions of them, their projection-weighted
# mean, and orthogonal Procrustes (as the similarity 1 - distance / 2).
MEASURES: dict[str, dict[str, Any]] = {
    "cka": {},
    "cca": {},
    "svcca": {"components": 20},
    "pwcca": {},
    "procrustes_similarity": {},
}
OTHERS = tuple(name for name in MEASURES if name != "cka")
AGREEMENT = "rank correlation with CKA"
# Groups of images for the jackknife of the rank correlation: each costs a whole set of grids.
GROUPS = 4


def run(lab: Lab, report: Report) -> dict[str, Any]:
    """Grids of five measures on pooled features, and rank correlations with that of CKA."""
    missing = [name for name in MEASURES if name not in measure_names()]
    if missing:
        raise RuntimeError(f"this build of repsim_fast has no measure {', '.join(missing)}")
    rows: list[dict[str, Any]] = []
    for kind in KINDS:
        for seed in lab.preset.seeds:
            layers, grids, left_out = _grids(lab, View(kind, recipes(lab, seed)[kind]))
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
    return {AGREEMENT: found, "images": _images(lab), "seeds": len(lab.preset.seeds)}


def check(lab: Lab) -> None:
    """Before hours are spent: canonical correlations need more images than features of a pair.

    Raises:
        ValueError: There are too few test images for the network.
    """
    model = models.build(lab.preset.architecture, num_classes=10)
    channels = max(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    # Also of the images without one group of them.
    least = -(-2 * channels * GROUPS // (GROUPS - 1)) + GROUPS
    if _images(lab) < least:
        raise ValueError(
            f"question 8 needs {least} test images for the {channels} channels of "
            f"{lab.preset.architecture}, got {_images(lab)}"
        )


def _show(
    report: Report,
    kind: str,
    layers: tuple[str, ...],
    grids: dict[str, Matrix],
    left_out: list[dict[str, Matrix]],
) -> None:
    errors = {name: jackknife_errors(np.stack([g[name] for g in left_out])) for name in grids}
    report.heatmaps(
        f"grids_{kind}",
        [Grid(name, name, layers, layers, g, errors[name], name) for name, g in grids.items()],
        f"{kind} network, pooled features, five measures",
    )


def _images(lab: Lab) -> int:
    return min(lab.preset.measure_images, len(lab.test_data))


def _agreement(grids: dict[str, Matrix], name: str) -> float:
    cells = np.tril_indices(len(grids[name]), -1)
    return spearman(grids["cka"][cells], grids[name][cells])


def _grids(
    lab: Lab, view: View
) -> tuple[tuple[str, ...], dict[str, Matrix], list[dict[str, Matrix]]]:
    """Layers, the grid of each measure, and the grids without each group of images."""
    images = _images(lab)
    key = digest([dataclasses.asdict(view), MEASURES, images, GROUPS])
    path = lab.work / "measures" / f"{key}.npz"
    if not path.exists():
        names, features = _pooled(lab, view, images)
        group = torch.arange(images) % GROUPS
        parts = [torch.arange(images)] + [(group != g).nonzero()[:, 0] for g in range(GROUPS)]
        stacked = {
            name: np.stack([_values(name, options, [f[p] for f in features]) for p in parts])
            for name, options in MEASURES.items()
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(".part.npz")
        np.savez_compressed(part, names=np.array(names), **stacked)
        part.replace(path)
    with np.load(path) as file:  # arrays of numbers and text only, never pickled
        held = {name: file[name] for name in MEASURES}
        whole = {name: values[0] for name, values in held.items()}
        left_out = [{name: v[i] for name, v in held.items()} for i in range(1, GROUPS + 1)]
        return tuple(map(str, file["names"])), whole, left_out


def _pooled(lab: Lab, view: View, images: int) -> tuple[list[str], list[torch.Tensor]]:
    """Names and (images, channels) features: fewer than images, as CCA needs."""
    model = lab.model(view)
    parts: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad(), Capture(model, is_paper_layer, maps="pool") as capture:
        for x in lab.images()[0][:images].split(lab.preset.compare_batch):
            model(x.to(lab.preset.device))
            for name, activation in capture.activations.items():
                parts.setdefault(name, []).append(activation.cpu())
    return list(parts), [torch.cat(p) for p in parts.values()]


def _values(name: str, options: dict[str, Any], features: list[torch.Tensor]) -> Matrix:
    """Grid of a measure; NaN for layers that it is not defined for, as constant ones are."""
    prepared = [prepare(f.double()) for f in features]
    known = [i for i, p in enumerate(prepared) if _defined(name, options, p)]
    values = np.full((len(prepared), len(prepared)), np.nan)
    some = grid(name, [prepared[i] for i in known], **options).cpu().numpy()
    values[np.ix_(known, known)] = some
    return values


def _defined(name: str, options: dict[str, Any], x: Any) -> bool:
    try:
        grid(name, [x], [x], **options)
    except UndefinedError:
        return False
    return True
