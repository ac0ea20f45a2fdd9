"""Q6: what does pruning do to representations, and do attacks go through what it takes away?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from experiments.lab.figures import Figures, mean_of, minus, number
from experiments.lab.lab import View
from experiments.lab.report import Report
from repsim_fast.analysis.dimensionality import dimensionality
from repsim_fast.analysis.estimates import Estimate, mean_over_seeds
from repsim_fast.analysis.grids import Array, mean_same_layer, rank_correlation
from repsim_fast.analysis.selectivity import selectivity

from ..carried import ATTACK, NOISE, Energies, energies, excess, mean_share
from ..compact_lab import CompactLab
from ..presets import Network
from ..recipes import Recipe
from .common import of_seeds

STANDARD, ROBUST = "standard", "robust"
DENSE, TRAINED = "dense", "trained further"
SELECTIVITY, DIMENSIONS = "selectivity", "components 95"


def _networks(lab: CompactLab) -> dict[str, Network]:
    return {STANDARD: lab.standard, ROBUST: lab.network}


def _stages(lab: CompactLab, network: Network, seed: int) -> dict[str, Recipe]:
    """A network as pre-trained, trained further as it is, and pruned."""
    dense = lab.dense(network, seed)
    sparsities = dict.fromkeys((lab.preset.focus, lab.preset.most))
    pruned = {_at(s): lab.pruned(dense, s) for s in sparsities}
    return {DENSE: dense, TRAINED: lab.finetuned(dense), **pruned}


def _at(sparsity: float) -> str:
    return f"pruned {sparsity:g}"


def recipes(lab: CompactLab) -> list[Recipe]:
    """All stages of both networks."""
    return [
        recipe
        for seed in lab.preset.seeds
        for network in _networks(lab).values()
        for recipe in _stages(lab, network, seed).values()
    ]


def run(lab: CompactLab, report: Report) -> dict[str, Any]:
    """CKA with the unpruned network by layer, numbers of units, what attacks go through."""
    return {
        "seeds": len(lab.preset.seeds),
        **_similarity(lab, report),
        **_units(lab, report),
        **_carried(lab, report),
    }


def _similarity(lab: CompactLab, report: Report) -> dict[str, Any]:
    """Same-layer CKA of each stage with the pre-trained network of the same seed."""
    preset = lab.preset
    focus = _at(preset.focus)
    compared = {}
    for seed in preset.seeds:
        views = [
            View(f"{kind}, {stage}", recipe)
            for kind, network in _networks(lab).items()
            for stage, recipe in _stages(lab, network, seed).items()
        ]
        compared[seed] = lab.compare(views)
    first = compared[preset.seeds[0]]
    stages = [s for s in _stages(lab, lab.network, preset.seeds[0]) if s != DENSE]
    curves = {
        f"{kind}, {stage}": first.curve(_diagonal, _pair(kind, stage))
        for kind in _networks(lab)
        for stage in stages
    }
    layers = first.layers[0]
    report.lines(
        "layers", curves, xlabel="layer", ylabel="CKA with the unpruned network",
        title="What pruning does to each layer",
    )  # fmt: skip
    report.table(
        "layers",
        [{"layer": n, **{k: c[i] for k, c in curves.items()}} for i, n in enumerate(layers)],
    )
    report.heatmaps(
        "grids",
        [first.grid(*_pair(kind, focus)) for kind in _networks(lab)],
        "CKA of unpruned (rows) and pruned (columns) networks",
        columns=2,
    )
    means = {
        name: mean_over_seeds(
            [c.estimate(mean_same_layer, _pair(*name.split(", "))) for c in compared.values()]
        )
        for name in curves
    }
    report.table("similarity", [{"network": k, "same-layer CKA": e} for k, e in means.items()])

    def over(index: Any, *stages: tuple[str, str]) -> Estimate:
        pairs = [_pair(*one) for one in stages]
        return mean_over_seeds([c.estimate(index, *pairs) for c in compared.values()])

    both = ((STANDARD, focus), (ROBUST, focus))
    return {
        "layers": len(layers),
        "same-layer CKA": means,
        "standard minus robust": over(lambda a, b: mean_same_layer(a) - mean_same_layer(b), *both),
        "rank correlation of losses": over(
            lambda a, b: rank_correlation(1 - a.diagonal(), 1 - b.diagonal()), *both
        ),
        "trained further minus pruned": {
            kind: over(
                lambda a, b: mean_same_layer(a) - mean_same_layer(b), (kind, TRAINED), (kind, focus)
            )
            for kind in _networks(lab)
        },
    }


def _diagonal(grid: Array) -> Array:
    """Same-layer cells."""
    return grid.diagonal()


def _pair(kind: str, stage: str) -> tuple[str, str]:
    return f"{kind}, {DENSE}", f"{kind}, {stage}"


def _units(lab: CompactLab, report: Report) -> dict[str, Any]:
    """Mean selectivity, and share of principal components for 95 % of the variance."""
    found: dict[str, dict[str, list[Figures]]] = {}
    for kind, network in _networks(lab).items():
        by_seed = [_stages(lab, network, seed) for seed in lab.preset.seeds]
        found[kind] = {
            stage: [units_of(lab, stages[stage]) for stages in by_seed] for stage in by_seed[0]
        }
    report.table(
        "units",
        [
            {"network": kind, "stage": stage, **mean_of(own)}
            for kind, stages in found.items() for stage, own in stages.items()
        ],
    )  # fmt: skip
    focus = _at(lab.preset.focus)
    return {
        "pruned minus trained further": {
            kind: minus(stages[focus], stages[TRAINED]) for kind, stages in found.items()
        }
    }


def units_of(lab: CompactLab, recipe: Recipe) -> Figures:
    """Means over the ReLUs."""
    preset = lab.preset

    def measure() -> dict[str, float]:
        model, images = lab.model_of(recipe), lab.images()
        batch = preset.compare_batch
        layers = dimensionality(model, images, batch_size=batch).values()
        shares = [own.clean.components_95.value / own.clean.features for own in layers]
        selective = selectivity(model, images, batch_size=batch).mean
        return {SELECTIVITY: selective, DIMENSIONS: sum(shares) / len(shares)}

    found = lab.networks.measured(recipe, "units", [preset.test_images], measure)
    return {name: number(_known(value)) for name, value in found.items()}


def _known(value: float | None) -> float:
    """Of a layer that does not vary nothing is known."""
    return float("nan") if value is None else value


def _carried(lab: CompactLab, report: Report) -> dict[str, Any]:
    """Share of changes that pruned weights carry, attacks' beyond images' own."""
    rows, found = [], {}
    for kind, network in _networks(lab).items():
        for s in dict.fromkeys((lab.preset.focus, lab.preset.most)):
            own = [
                _energies(lab, dense, pruned)
                for dense, pruned in zip(
                    of_seeds(lab, network), of_seeds(lab, network, s), strict=True
                )
            ]
            figures = {
                change: mean_over_seeds([excess(one, change) for one in own])
                for change in (ATTACK, NOISE)
            }
            shares = {
                f"share of {change}": mean_over_seeds([mean_share(one, change) for one in own])
                for change in own[0][next(iter(own[0]))]
            }
            more = {f"{change} minus images": e for change, e in figures.items()}
            rows.append({"network": kind, "sparsity": s, **shares, **more})
            if s == lab.preset.focus:
                found[kind] = figures
    report.table("carried", rows)
    return {"carried beyond images": found}


def _energies(lab: CompactLab, dense: Recipe, pruned: Recipe) -> Energies:
    preset = lab.preset

    def measure() -> Any:
        n = min(preset.carried, len(lab.test_data))
        x, where = lab.images()[0][:n], preset.device
        signs = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
        others: dict[str, Tensor] = {
            ATTACK: lab.adversarial(dense)[:n],
            NOISE: (x + preset.eps * signs).clamp(0, 1),
        }
        return energies(
            lab.model_of(dense), lab.model_of(pruned), x.to(where),
            {name: images.to(where) for name, images in others.items()},
        )  # fmt: skip

    settings = [dense.name, preset.carried, preset.eps, preset.attack_steps]
    found: Energies = lab.networks.measured(pruned, "carried", settings, measure)
    return found
