"""Q9: is the difference significant, larger than between seeds, and what did in-place ReLUs do?"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from torch import nn

from repsim_fast.results import Grid
from repsim_fast.similarity import grid

from .. import indices
from ..indices import Matrix
from ..lab import Lab, View, is_paper_layer
from ..report import Report
from .structure import all_seeds


def run(lab: Lab, report: Report) -> dict[str, Any]:
    """Tests of "block structure disappears", and the published heat maps' artefact."""
    return {"block structure": _tests(lab, report), "in place": _in_place(lab, report)}


def _tests(lab: Lab, report: Report) -> dict[str, Any]:
    """Robust against standard networks, once over seeds and once over images."""
    standard, robust, found = all_seeds(lab)
    stages = found.stages(standard[0].name)
    tested = {
        "block index": lambda g: indices.block_index(g, stages),
        "stage contrast": lambda g: indices.stage_contrast(g, stages),
        "mean off-diagonal": indices.mean_off_diagonal,
    }
    rows, results = [], {}
    for name, index in tested.items():
        # Mean off-diagonal rises with robustness, the other two fall.
        sign = 1 if name == "mean off-diagonal" else -1
        values = {
            kind: [found.estimate(index, (v.name, v.name)).value for v in views]
            for kind, views in (("standard", standard), ("robust", robust))
        }
        pairs = [(v.name, v.name) for v in (*standard, *robust)]
        over_images = found.estimate(
            lambda *grids, i=index, s=sign: s * _mean_difference(i, grids),
            *pairs,
        )
        result = {
            "standard": indices.over_seeds(values["standard"]),
            "robust": indices.over_seeds(values["robust"]),
            "difference in the expected direction": over_images,
            "p over images": indices.one_sided_p(over_images),
            "p over seeds": indices.permutation_test(
                [sign * v for v in values["standard"]], [sign * v for v in values["robust"]]
            ),
        }
        results[name] = {**result, "values": values}
        rows.append({"index": name, **result})
    report.table("tests", rows)
    return results


def _mean_difference(index: Any, grids: tuple[Matrix, ...]) -> float:
    """Mean of the second half of the grids (robust) minus that of the first (standard)."""
    values = np.array([index(g) for g in grids])
    half = len(values) // 2
    return float(values[half:].mean() - values[:half].mean())


def _in_place(lab: Lab, report: Report) -> dict[str, Any]:
    """The same network compared as published, through views that later layers overwrite."""
    rows, found = [], {}
    for kind, recipe in (("standard", lab.standard()), ("robust", lab.robust())):
        model = lab.model(View(kind, recipe))
        x = lab.images()[0][: lab.preset.measure_images].to(lab.preset.device)
        layers, published = _hooked(model, x, in_place=True)
        _, correct = _hooked(model, x, in_place=False)
        pairs = [(i, i + 1) for i in range(len(layers) - 1) if _norm_then_relu(model, layers, i)]
        gap = {
            name: max(float(np.nanmax(np.abs(g[i] - g[j]))) for i, j in pairs)
            for name, g in (("published", published), ("correct", correct))
        }
        found[kind] = {
            "norm layers followed by a ReLU": len(pairs),
            "largest difference of the rows of norm and ReLU": gap,
            "smallest CKA of norm and ReLU": {
                name: min(float(g[i, j]) for i, j in pairs)
                for name, g in (("published", published), ("correct", correct))
            },
            "mean off-diagonal": {
                "published": indices.mean_off_diagonal(published),
                "correct": indices.mean_off_diagonal(correct),
            },
            "largest error of a cell": float(np.nanmax(np.abs(published - correct))),
        }
        rows += [
            {
                "network": kind,
                "hooks": name,
                "largest row difference, norm and ReLU": gap[name],
                "mean off-diagonal": indices.mean_off_diagonal(g),
            }
            for name, g in (("published", published), ("correct", correct))
        ]
        unknown = np.full_like(correct, np.nan)
        report.heatmaps(
            f"in_place_{kind}",
            [
                Grid("as published", "as published", layers, layers, published, unknown, "cka"),
                Grid("correct", "correct", layers, layers, correct, unknown, "cka"),
            ],
            f"{kind} network: in-place ReLUs overwrite what was recorded of norm layers",
            columns=2,
        )
    report.table("in_place", rows)
    return found


def _hooked(model: nn.Module, x: torch.Tensor, *, in_place: bool) -> tuple[tuple[str, ...], Matrix]:
    """CKA grid from plain hooks; with ``in_place`` they keep views, and ReLUs overwrite them."""
    model = copy.deepcopy(model).eval()
    kept: dict[str, torch.Tensor] = {}

    def hook(name: str) -> Any:
        def keep(module: nn.Module, args: Any, output: torch.Tensor) -> None:
            flat = output.flatten(1)
            kept[name] = flat if in_place else flat.clone()

        return keep

    for name, module in model.named_modules():
        if is_paper_layer(name, module):
            module.register_forward_hook(hook(name))
        if isinstance(module, nn.ReLU):
            module.inplace = in_place
    with torch.no_grad():
        model(x)
    values = grid("cka", list(kept.values())).cpu().numpy()
    return tuple(kept), values


def _norm_then_relu(model: nn.Module, layers: tuple[str, ...], i: int) -> bool:
    modules = dict(model.named_modules())
    return isinstance(modules[layers[i]], nn.BatchNorm2d) and isinstance(
        modules[layers[i + 1]], nn.ReLU
    )
