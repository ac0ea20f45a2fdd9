"""What in-place ReLUs did to published heat maps: they overwrote what was recorded of norms."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.lab.comparisons import Comparison
from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import jackknife
from repsim_fast.analysis.grids import mean_off_diagonal
from repsim_fast.ops import centered_gram
from repsim_fast.similarity import MinibatchCKA
from repsim_fast.similarity.streaming.minibatch import without_each_group

from ..robust_lab import RobustLab, is_paper_layer
from .seeds import recipes


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """The same network compared as published, through views that later layers overwrite."""
    rows, found = [], {}
    for kind, recipe in recipes(lab, lab.preset.seeds[0]).items():
        model = lab.model(View(kind, recipe))
        batches = torch.split(lab.images()[0], lab.preset.compare_batch)
        whole = [x for x in batches if len(x) == len(batches[0])]
        hooked = {
            name: _hooked(model, whole, lab.preset.device, in_place=name == "published")
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
            "largest error of a cell": jackknife(
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
        "mean off-diagonal": found.estimate(mean_off_diagonal, own),
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
    accumulated = MinibatchCKA()
    for x in batches:
        with torch.no_grad():
            model(x.to(device))
        grams = [centered_gram(flat, packed=True) for flat in kept.values()]
        accumulated.update(torch.stack(grams), n=len(x))
    found = accumulated.compute()
    view = "published" if in_place else "correct"
    left_out = without_each_group(found.hsic).cpu().numpy()
    return Comparison((view,), (tuple(kept),), found.value.cpu().numpy(), left_out)


def _norm_then_relu(model: nn.Module, layers: tuple[str, ...], i: int) -> bool:
    modules = dict(model.named_modules())
    return isinstance(modules[layers[i]], nn.BatchNorm2d) and isinstance(
        modules[layers[i + 1]], nn.ReLU
    )
