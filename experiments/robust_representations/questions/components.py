"""Does block structure rest on one dominant principal component that layers share?"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.components import (
    first_component_cosines,
    first_component_share,
    without_first_component,
)
from repsim_fast.analysis.estimates import Estimate, mean_over_seeds
from repsim_fast.analysis.grids import Array, block_index, mean_off_diagonal
from repsim_fast.analysis.stages import making_stages
from repsim_fast.capture import Capture
from repsim_fast.ops import centered_gram
from repsim_fast.similarity import grid, prepare

from ..recipes import Recipe
from ..robust_lab import RobustLab, is_paper_layer
from .common import stream
from .seeds import KINDS, recipes

# Images whose spectra are taken: an eigendecomposition of that size for each layer.
IMAGES = 400
AFTER, BEFORE = "without the first component", "as it is"


def run(lab: RobustLab, report: Report) -> dict[str, Any]:
    """Shares and cosines of first components on the residual stream, and blocks without them."""
    rows: list[dict[str, Any]] = []
    shares: dict[str, list[list[float]]] = {kind: [] for kind in KINDS}
    for kind in KINDS:
        for seed in lab.preset.seeds:
            view = View(kind, recipes(lab, seed)[kind])
            layers, made, features = _features(lab, view)
            own = [first_component_share(x) for x in features]
            shares[kind].append(own)
            cosines = first_component_cosines(features)
            rows.append(
                {
                    "network": kind, "seed": seed,
                    "share": float(np.mean(own)),
                    "largest share": max(own),
                    "cosine": mean_off_diagonal(cosines),
                    **_blocks(features, made, BEFORE),
                    **_blocks([without_first_component(x) for x in features], made, AFTER),
                }
            )  # fmt: skip
    names = [key for key in rows[0] if key not in ("network", "seed")]
    found = {
        kind: {
            name: mean_over_seeds(
                [Estimate(r[name], float("nan")) for r in rows if r["network"] == kind]
            )
            for name in names
        }
        for kind in KINDS
    }
    report.table("components", [{"network": kind, **own} for kind, own in found.items()])
    report.lines(
        "components",
        {
            kind: [
                mean_over_seeds([Estimate(v, float("nan")) for v in at])
                for at in zip(*own, strict=True)
            ]
            for kind, own in shares.items()
        },
        x=list(layers), xlabel="residual stream", ylabel="share of variance",
        title="First principal component, benign test images",
    )  # fmt: skip
    return found


def _features(
    lab: RobustLab, view: View[Recipe]
) -> tuple[tuple[str, ...], tuple[str, ...], list[Tensor]]:
    """Layers of the stream, their stages, and features (images, images) with the Gram of the
    centred layer."""
    model = lab.model(view)
    images = lab.images()[0][:IMAGES].to(lab.preset.device)
    names = [n for n, m in model.named_modules() if is_paper_layer(n, m)]
    layers = [names[i] for i in stream(names)]
    found: dict[str, Tensor] = {}

    def keep(name: str, x: Tensor) -> None:
        # Of centred features: the unbiased centring of CKA's estimate has negative eigenvalues.
        gram = centered_gram(x, centering="features")
        values, vectors = torch.linalg.eigh(gram.double())
        found[name] = (vectors * values.clamp(min=0).sqrt()).cpu()

    with torch.no_grad(), Capture(model, layers, on_activation=keep):
        model(images)
    made = making_stages(model, images[:2], layers)
    return tuple(layers), made, [found[name] for name in layers]


def _blocks(features: list[Tensor], made: tuple[str, ...], name: str) -> dict[str, float]:
    values: Array = grid("cka", [prepare(x) for x in features]).numpy()
    return {
        f"mean off-diagonal, {name}": mean_off_diagonal(values),
        f"block index, {name}": block_index(values, made),
    }
