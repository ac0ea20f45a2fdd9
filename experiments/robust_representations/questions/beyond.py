"""Q9: is the difference significant, larger than between seeds, and what did in-place ReLUs do?"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from repsim_fast.ops import centered_gram

from .. import indices
from ..comparing import BatchedCKA, Comparison, is_paper_layer
from ..indices import Matrix
from ..lab import Lab, View
from ..report import Report
from .seeds import all_seeds, recipes


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
        networks = {
            kind: [found.estimate(index, (v.name, v.name)) for v in views]
            for kind, views in (("standard", standard), ("robust", robust))
        }
        values = {kind: [e.value for e in own] for kind, own in networks.items()}
        pairs = [(v.name, v.name) for v in (*standard, *robust)]
        over_images = found.estimate(
            lambda *grids, i=index, s=sign: s * _mean_difference(i, grids),
            *pairs,
        )
        result = {
            **{kind: indices.mean_over_seeds(own) for kind, own in networks.items()},
            "difference in the expected direction": over_images,
            "p over images": indices.one_sided_p(over_images),
            "p over seeds": indices.permutation_test(
                [sign * v for v in values["standard"]], [sign * v for v in values["robust"]]
            ),
        }
        results[name] = {**result, "networks": networks}
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
    for kind, recipe in recipes(lab, lab.preset.seeds[0]).items():
        model = lab.model(View(kind, recipe))
        batches = lab.images()[0].split(lab.preset.compare_batch)
        batches = [x for x in batches if len(x) == len(batches[0])]
        hooked = {
            name: _hooked(model, batches, lab.preset.device, in_place=name == "published")
            for name in ("published", "correct")
        }
        layers = hooked["correct"].layers[0]
        pairs = [(i, i + 1) for i in range(len(layers) - 1) if _norm_then_relu(model, layers, i)]
        seen = {name: _seen(one, name, pairs) for name, one in hooked.items()}
        rows += [{"network": kind, "hooks": name, **row} for name, row in seen.items()]
        value, wrong = (hooked[name].value for name in ("correct", "published"))
        found[kind] = {
            "norm layers followed by a ReLU": len(pairs),
            **{key: {name: seen[name][key] for name in hooked} for key in seen["correct"]},
            "largest error of a cell": indices.jackknife(
                np.nanmax(np.abs(wrong - value)),
                [
                    np.nanmax(np.abs(a - b))
                    for a, b in zip(
                        hooked["published"].replicates, hooked["correct"].replicates, strict=True
                    )
                ],
            ),
        }
        report.heatmaps(
            f"in_place_{kind}",
            [one.grid(name, name) for name, one in hooked.items()],
            f"{kind} network: in-place ReLUs overwrite what was recorded of norm layers",
            columns=2,
        )
    report.table("in_place", rows)
    return found


def _seen(found: Comparison, name: str, pairs: list[tuple[int, int]]) -> dict[str, Any]:
    """Whether the rows of norm layers and of the ReLUs after them differ, and the grid's mean."""
    own = (name, name)
    return {
        "largest row difference, norm and ReLU": found.estimate(
            lambda g: max(float(np.nanmax(np.abs(g[i] - g[j]))) for i, j in pairs), own
        ),
        "smallest CKA, norm with ReLU": found.estimate(
            lambda g: min(float(g[i, j]) for i, j in pairs), own
        ),
        "mean off-diagonal": found.estimate(indices.mean_off_diagonal, own),
    }


def _hooked(
    model: nn.Module, batches: Sequence[torch.Tensor], device: str, *, in_place: bool
) -> Comparison:
    """CKA from plain hooks; with ``in_place`` they keep views, and ReLUs overwrite them."""
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
    batched = BatchedCKA()
    for x in batches:
        with torch.no_grad():
            model(x.to(device))
        batched.add([centered_gram(flat, packed=True) for flat in kept.values()], len(x))
    view = "published" if in_place else "correct"
    return Comparison((view,), (tuple(kept),), batched.value(), batched.without_each())


def _norm_then_relu(model: nn.Module, layers: tuple[str, ...], i: int) -> bool:
    modules = dict(model.named_modules())
    return isinstance(modules[layers[i]], nn.BatchNorm2d) and isinstance(
        modules[layers[i + 1]], nn.ReLU
    )
