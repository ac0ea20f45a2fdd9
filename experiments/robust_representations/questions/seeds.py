"""Networks of all seeds, and what a change of seed alone does.

That is the yardstick of every question that trains one network of a kind: a difference between two
networks counts when it is larger than that between two networks that differ by their seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import combinations, product

from experiments.lab.comparisons import Comparison
from experiments.lab.lab import View
from repsim_fast.analysis.estimates import (
    Estimate,
    jackknife,
    spread_over_seeds,
    total_error,
)
from repsim_fast.analysis.grids import Array, mean_same_layer

from ..recipes import Recipe
from ..robust_lab import RobustLab
from .common import STAGES, stage_mean_of, structure

KINDS = ("standard", "robust")


def recipes(lab: RobustLab, seed: int, *, swept: bool = False) -> dict[str, Recipe]:
    """The usual networks of a seed, by kind; ``swept``, those of the sizes of questions 4 to 6."""
    return {"standard": lab.standard(seed, swept=swept), "robust": lab.robust(seed, swept=swept)}


def usual(lab: RobustLab, *, swept: bool = False) -> list[Recipe]:
    """All networks of the baseline; robust ones, which take longer, begin."""
    pairs = [recipes(lab, seed, swept=swept) for seed in lab.preset.seeds]
    return [pair[kind] for pair in pairs for kind in reversed(KINDS)]


def all_seeds(
    lab: RobustLab, *, swept: bool = False
) -> tuple[list[View[Recipe]], list[View[Recipe]], Comparison]:
    """Standard and robust networks of all seeds, compared with one another."""
    standard, robust = (
        [View(f"{kind} {s}", recipes(lab, s, swept=swept)[kind]) for s in lab.preset.seeds]
        for kind in KINDS
    )
    return standard, robust, lab.compare([*standard, *robust])


@dataclass(frozen=True)
class Baseline:
    """The yardstick; all NaN or empty where there is one seed.

    Attributes:
        spread: Standard deviation over the seeds of a kind of each index of `structure`.
        pairs: Pairs of names in ``found``: two networks of a kind, or one of each.
        seeds: Of the networks, by name.
    """

    found: Comparison
    spread: Mapping[str, Mapping[str, Estimate]]
    pairs: Mapping[str, list[tuple[str, str]]]
    seeds: Mapping[str, int]

    def over_pairs(self, kind: str, index: Callable[[Array], float]) -> Estimate:
        """Mean of an index over the pairs of networks of a kind, or of one of each.

        It errs by images and by seeds. These are left out in turn, too, of three at least; of two
        nothing is left without one, and the error is that of images alone.
        """
        pairs = self.pairs[kind]
        of_images = self.found.estimate(mean_of(index), *pairs)
        without = [
            [p for p in pairs if seed not in (self.seeds[p[0]], self.seeds[p[1]])]
            for seed in dict.fromkeys(self.seeds.values())
        ]
        if not all(without):
            return of_images
        left_out = [self.found.estimate(mean_of(index), *left).value for left in without]
        return total_error(of_images.value, [of_images, jackknife(of_images.value, left_out)])

    @property
    def same_layer(self) -> dict[str, Estimate]:
        """Mean same-layer CKA of the pairs of each kind."""
        return {kind: self.over_pairs(kind, mean_same_layer) for kind in self.pairs}

    @property
    def by_stage(self) -> dict[str, dict[str, Estimate]]:
        """The same for each stage."""
        stages = self.found.stages(next(iter(self.seeds)))
        means = {stage: stage_mean_of(stages, stage) for stage in STAGES}
        return {
            kind: {stage: self.over_pairs(kind, mean) for stage, mean in means.items()}
            for kind in self.pairs
        }

    def between(self, kind: str, index: str = "mean off-diagonal") -> Estimate:
        """Standard deviation of the difference of an index between two networks of a kind."""
        spread = self.spread[kind][index]
        return Estimate(2**0.5 * spread.value, 2**0.5 * spread.standard_error)


def baseline(lab: RobustLab, *, swept: bool = False) -> Baseline:
    """From networks of all seeds: those of question 1, or as the networks of questions 4 to 6."""
    standard, robust, found = all_seeds(lab, swept=swept)
    names = {"standard": [v.name for v in standard], "robust": [v.name for v in robust]}
    rows = {kind: [structure(found, name) for name in own] for kind, own in names.items()}
    pairs = {
        "standard-standard": list(combinations(names["standard"], 2)),
        "robust-robust": list(combinations(names["robust"], 2)),
        "standard-robust": list(product(names["standard"], names["robust"])),
    }
    pairs = {kind: several for kind, several in pairs.items() if several}
    return Baseline(
        found,
        {
            kind: {key: spread_over_seeds([r[key].value for r in own]) for key in own[0]}
            for kind, own in rows.items()
        },
        pairs,
        {view.name: view.recipe.seed for view in (*standard, *robust)},
    )


def along_training(lab: RobustLab, kind: str, seed: int) -> tuple[list[View[Recipe]], Comparison]:
    """A usual network at the epochs that are kept and in the end, compared with itself."""
    recipe = recipes(lab, seed)[kind]
    epochs = (*lab.kept_epochs, lab.preset.epochs)
    views = [View(f"epoch {e}", recipe, epoch=e) for e in epochs]
    return views, lab.compare(views)


def mean_of(index: Callable[[Array], float]) -> Callable[..., float]:
    """Mean of an index over several grids."""
    return lambda *grids: sum(map(index, grids)) / len(grids)
