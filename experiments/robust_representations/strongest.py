"""Accuracy under AutoAttack, the strongest attack that networks meet here."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

from repsim_fast.analysis.estimates import Estimate, share
from repsim_fast.attacks import AutoAttack

from .presets import Strongest
from .recipes import Recipe
from .robust_lab import RobustLab


def accuracy(lab: RobustLab, recipe: Recipe) -> Estimate | None:
    """Of the images that the preset says; None where it says none, or of another seed's network.

    As with other attacks, an image counts that is classified correctly in float32, benign and
    attacked, while gradients have the precision of the training.
    """
    asked = lab.preset.strongest
    if asked is None or recipe.seed != lab.preset.seeds[0]:
        return None
    held = lab.networks.measured(
        recipe,
        "autoattack",
        [dataclasses.asdict(asked), _ball(lab), lab.dataset.name],
        lambda: _accuracy(lab, recipe, asked),
    )
    return share(held["share"], held["images"])


def check(lab: RobustLab) -> None:
    """Before hours are spent.

    Raises:
        ImportError: A stage needs a package that is not installed.
    """
    if lab.preset.strongest is not None:
        _attack(lab, lab.preset.strongest)


def _accuracy(lab: RobustLab, recipe: Recipe, asked: Strongest) -> dict[str, Any]:
    """Batch by batch, each kept: an interrupted run goes on at the batch that it was at."""
    model = lab.networks.load(recipe)
    images = lab.test_data.subset(min(asked.images, len(lab.test_data)))
    size, n = lab.preset.compare_batch, len(images)

    def robust(first: int) -> float:
        batch = images.take(slice(first, first + size))
        # A stream of its own: it does not matter what this process attacked before.
        return lab.shares(model, _attack(lab, asked, seed=first), *batch)["robust"]

    count = 0.0
    for first in range(0, n, size):
        of = min(size, n - first)
        settings = [dataclasses.asdict(asked), _ball(lab), lab.dataset.name, first, of]
        count += of * lab.networks.measured(
            recipe, "autoattack batch", settings, functools.partial(robust, first)
        )
    return {"share": count / n, "images": n}


def _attack(lab: RobustLab, asked: Strongest, seed: int = 0) -> AutoAttack:
    return AutoAttack(
        **_ball(lab), stages=asked.stages, steps=asked.steps, execution="fast", seed=seed
    )


def _ball(lab: RobustLab) -> dict[str, Any]:
    """That of the usual threat model."""
    usual = next(iter(lab.threats.values())).common
    return {"norm": usual["norm"], "eps": usual["eps"]}
