"""Q6, beyond the paper: which layers does the collapse change?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from experiments.lab.comparisons import Comparison
from experiments.lab.report import Report
from repsim_fast.analysis.estimates import Array, Estimate, mean_over_seeds, over_seeds

from ..overfitting_lab import OverfittingLab
from ..recipes import Recipe
from ..regimes import is_collapsed
from .along import of_seeds, scores_along, where

COLLAPSE, CONTROL = ("before", "after"), ("control before", "control after")
PAIRS = {
    "before, after": COLLAPSE,
    "the same epochs without feature": CONTROL,
    "before, PGD": ("before", "pgd"),
    "after, PGD": ("after", "pgd"),
    "before, standard": ("before", "standard"),
    "after, standard": ("after", "standard"),
}
KINDS = ("dimensions", "selectivity")


@dataclass(frozen=True)
class _Seed:
    """Networks of one seed, on either side of the collapse and those they are held against.

    Attributes:
        seed: Of all of them.
        epochs: Before and after.
        collapsed: Whether these lie around a collapse.
        views: The networks, each with its epoch.
        grids: CKA of all layers.
        units: By view, kind and layer, see ``OverfittingLab.units``.
    """

    seed: int
    epochs: tuple[int, int]
    collapsed: bool
    views: Mapping[str, tuple[Recipe, int]]
    grids: Comparison
    units: Mapping[str, Mapping[str, Mapping[str, Estimate]]]

    def change(self, pair: tuple[str, str], kind: str) -> float:
        """Of the units from the first of a pair of views to the second, a mean over layers."""
        before, after = ([own.value for own in self.units[view][kind].values()] for view in pair)
        return float(np.mean(np.subtract(after, before)))


def run(lab: OverfittingLab, report: Report) -> dict[str, Any]:
    """Before against after, layer by layer, beside the same epochs without feature."""
    every = [_of_seed(lab, seed, recipe) for seed, recipe in of_seeds(lab)]
    gone = [one for one in every if one.collapsed]
    # Without a collapse the same is shown of the middle of the training, and no claim is judged.
    shown = gone or every
    curves = {
        name: _means([one.grids.curve(_diagonal, pair) for one in shown])
        for name, pair in PAIRS.items()
    }
    layers = shown[0].grids.layers[0]
    report.table(
        "layers",
        [
            {"layer": layer, **{name: curve[i] for name, curve in curves.items()}}
            for i, layer in enumerate(layers)
        ],
    )
    report.lines(
        "layers", curves, xlabel="layer", ylabel="CKA, same layer",
        title=f"Before and after, {'across' if gone else 'without'} a collapse",
    )  # fmt: skip
    units = {kind: _units(shown, kind) for kind in KINDS}
    for kind, by_view in units.items():
        _show_units(report, kind, by_view)

    def mean(index: Callable[..., float], *pairs: tuple[str, str]) -> Estimate:
        return mean_over_seeds([one.grids.estimate(index, *pairs) for one in shown])

    return {
        "collapsed": bool(gone),
        "networks that collapse": len(gone),
        "networks": len(every),
        "controls that collapse": sum(_control_collapses(lab, one) for one in shown),
        "epochs": {f"seed {one.seed}": one.epochs for one in shown},
        "change": {
            "collapse": mean(_change, COLLAPSE),
            "control": mean(_change, CONTROL),
            "collapse minus control": mean(lambda a, b: _change(a) - _change(b), COLLAPSE, CONTROL),
            "last block minus first": mean(_depth, COLLAPSE),
        },
        "nearer to standard than before": mean(
            _nearer, ("after", "standard"), ("before", "standard")
        ),
        "nearer to PGD than before": mean(_nearer, ("after", "pgd"), ("before", "pgd")),
        **units,
        "change of units": {
            kind: {
                name: over_seeds([one.change(pair, kind) for one in shown])
                for name, pair in (("collapse", COLLAPSE), ("control", CONTROL))
            }
            for kind in KINDS
        },
    }


def _of_seed(lab: OverfittingLab, seed: int, recipe: Recipe) -> _Seed:
    beta = lab.preset.focus[1]
    found = where(scores_along(lab, recipe), len(lab.carriers))
    before, after = found or (lab.kept[(len(lab.kept) - 1) // 2], lab.kept[-1])
    views = {
        "before": (recipe, before),
        "after": (recipe, after),
        "control before": (lab.recipe(beta=0.0, seed=seed), before),
        "control after": (lab.recipe(beta=0.0, seed=seed), after),
        # The same two for all seeds: what they are held against, not what is compared.
        "pgd": (lab.recipe("pgd"), after),
        "standard": (lab.recipe("standard"), after),
    }
    units = {name: lab.units(*view, beta) for name, view in views.items()}
    grids = lab.compare_on(beta, views)
    return _Seed(seed, (before, after), found is not None, views, grids, units)


def _control_collapses(lab: OverfittingLab, one: _Seed) -> bool:
    recipe, _ = one.views["control after"]
    return is_collapsed(lab.scores(recipe), len(lab.carriers))


def _units(shown: Sequence[_Seed], kind: str) -> dict[str, dict[str, Estimate]]:
    """Means over seeds, by view and layer; a network that several seeds share counts once."""
    found = {}
    for view in shown[0].views:
        networks = list({one.views[view]: one.units[view][kind] for one in shown}.values())
        found[view] = {
            layer: mean_over_seeds([own[layer] for own in networks]) for layer in networks[0]
        }
    return found


def _show_units(report: Report, kind: str, by_view: Mapping[str, Mapping[str, Estimate]]) -> None:
    report.table(
        kind,
        [
            {"layer": layer, **{view: own[layer] for view, own in by_view.items()}}
            for layer in next(iter(by_view.values()))
        ],
    )
    report.lines(
        kind,
        {view: list(own.values()) for view, own in by_view.items()},
        xlabel="layer" if kind == "dimensions" else "ReLU",
        ylabel="participation ratio" if kind == "dimensions" else "class selectivity",
        title="What the units of layers do",
    )


def _means(curves: Sequence[Sequence[Estimate]]) -> list[Estimate]:
    return [mean_over_seeds(own) for own in zip(*curves, strict=True)]


def _diagonal(grid: Array) -> Array:
    return np.diagonal(grid)


def _change(grid: Array) -> float:
    """1 - CKA of the same layer, a mean over layers."""
    return float(1 - np.diagonal(grid).mean())


def _nearer(after: Array, before: Array) -> float:
    """How much nearer to a third network is after than before."""
    return _change(before) - _change(after)


def _depth(grid: Array) -> float:
    """Change of the last block beyond that of the first; between stem and logits are the blocks."""
    same = np.diagonal(grid)[1:-1]
    return float(same[0] - same[-1])


def recipes(lab: OverfittingLab) -> list[Recipe]:
    """All that are compared."""
    across = [(own, lab.recipe(beta=0.0, seed=seed)) for seed, own in of_seeds(lab)]
    return [*(r for pair in across for r in pair), lab.recipe("pgd"), lab.recipe("standard")]
