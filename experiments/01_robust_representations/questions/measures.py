"""Q8: do CCA, SVCCA, PWCCA and Procrustes rank pairs of layers as CKA does?"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from repsim_fast.capture import Capture
from repsim_fast.results import Grid
from repsim_fast.similarity import UndefinedError, grid, measure_names, prepare

from ..indices import Matrix, jackknife, spearman
from ..lab import Lab, View, is_paper_layer
from ..networks import digest
from ..report import Report

# The paper's: canonical correlations, 20 principal directions of them, their projection-weighted
# mean, and orthogonal Procrustes (as the similarity 1 - distance / 2).
MEASURES: dict[str, dict[str, Any]] = {
    "cka": {},
    "cca": {},
    "svcca": {"components": 20},
    "pwcca": {},
    "procrustes_similarity": {},
}
# Groups of images for the jackknife of the rank correlation: each costs a whole set of grids.
GROUPS = 4


def run(lab: Lab, report: Report) -> dict[str, Any]:
    """Grids of five measures on pooled features, and rank correlations with that of CKA."""
    missing = [name for name in MEASURES if name not in measure_names()]
    if missing:
        raise RuntimeError(f"this build of repsim_fast has no measure {', '.join(missing)}")
    rows, found = [], {}
    for kind, recipe in (("standard", lab.standard()), ("robust", lab.robust())):
        layers, grids, left_out = _grids(lab, View(kind, recipe))
        found[kind] = {}
        for name in MEASURES:
            if name != "cka":
                found[kind][name] = jackknife(
                    _agreement(grids, name), [_agreement(g, name) for g in left_out]
                )
                rows.append(
                    {"network": kind, "measure": name,
                     "rank correlation with CKA": found[kind][name]}
                )  # fmt: skip
        unknown = np.full((len(layers), len(layers)), np.nan)
        report.heatmaps(
            f"grids_{kind}",
            [Grid(name, name, layers, layers, g, unknown, name) for name, g in grids.items()],
            f"{kind} network, pooled features, five measures",
        )
    report.table("rank_correlations", rows)
    return {"rank correlation with CKA": found, "images": lab.preset.measure_images}


def _agreement(grids: dict[str, Matrix], name: str) -> float:
    cells = np.tril_indices(len(grids[name]), -1)
    return spearman(grids["cka"][cells], grids[name][cells])


def _grids(
    lab: Lab, view: View
) -> tuple[tuple[str, ...], dict[str, Matrix], list[dict[str, Matrix]]]:
    """Layers, the grid of each measure, and the grids without each group of images."""
    images = min(lab.preset.measure_images, lab.preset.test_images)
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
