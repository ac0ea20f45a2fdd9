"""Grids of the paper's measures on pooled features, kept in the work folder."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from experiments.lab.files import digest
from experiments.lab.lab import View
from repsim_fast._core.files import replacing
from repsim_fast.analysis.grids import Array
from repsim_fast.capture import Capture
from repsim_fast.similarity import UndefinedError, grid, prepare

from ..recipes import Recipe
from ..robust_lab import RobustLab, is_paper_layer

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


def n_images(lab: RobustLab) -> int:
    """Test images that the measures are taken on."""
    return min(lab.preset.measure_images, len(lab.test_data))


def grids(
    lab: RobustLab, view: View[Recipe]
) -> tuple[tuple[str, ...], dict[str, Array], list[dict[str, Array]]]:
    """Layers, the grid of each measure, and the grids without each group of images."""
    images = n_images(lab)
    key = digest([dataclasses.asdict(view), MEASURES, images, GROUPS])
    path = lab.work / "measures" / f"{key}.npz"
    if not path.exists():
        names, features = _pooled(lab, view, images)
        group = torch.arange(images) % GROUPS
        parts = [torch.arange(images)] + [(group != g).nonzero()[:, 0] for g in range(GROUPS)]
        by_part = [_values([f[rows] for f in features]) for rows in parts]
        held: dict[str, Any] = {
            name: np.stack([values[name] for values in by_part]) for name in MEASURES
        }
        with replacing(path) as part:
            np.savez_compressed(part, names=np.array(names), **held)
    with np.load(path) as file:  # arrays of numbers and text only, never pickled
        held = {name: file[name] for name in MEASURES}
        whole = {name: values[0] for name, values in held.items()}
        left_out = [{name: v[i] for name, v in held.items()} for i in range(1, GROUPS + 1)]
        return tuple(map(str, file["names"])), whole, left_out


def _pooled(
    lab: RobustLab, view: View[Recipe], images: int
) -> tuple[list[str], list[torch.Tensor]]:
    """Names and (images, channels) features: fewer than images, as CCA needs."""
    model = lab.model(view)
    parts: dict[str, list[torch.Tensor]] = {}
    with torch.no_grad(), Capture(model, is_paper_layer, maps="pool") as capture:
        for x in torch.split(lab.images()[0][:images], lab.preset.compare_batch):
            model(x.to(lab.preset.device))
            for name, activation in capture.activations.items():
                parts.setdefault(name, []).append(activation.cpu())
    return list(parts), [torch.cat(p) for p in parts.values()]


def _values(features: list[torch.Tensor]) -> dict[str, Array]:
    """Grid of each measure; NaN for layers that it is not defined for, as constant ones are."""
    prepared = [prepare(f.double()) for f in features]  # for all measures once
    found = {}
    for name, options in MEASURES.items():
        known = [i for i, x in enumerate(prepared) if _defined(name, options, x)]
        values = np.full((len(prepared), len(prepared)), np.nan)
        some = grid(name, [prepared[i] for i in known], **options).cpu().numpy()
        values[np.ix_(known, known)] = some
        found[name] = values
    return found


def _defined(name: str, options: dict[str, Any], x: Any) -> bool:
    try:
        grid(name, [x], [x], **options)
    except UndefinedError:
        return False
    return True
