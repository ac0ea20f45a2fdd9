"""Accuracy under AutoAttack, the strongest attack that networks meet here."""

from __future__ import annotations

import dataclasses
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
    images = lab.test_data.subset(min(asked.images, len(lab.test_data)))
    shares = lab.shares(lab.networks.load(recipe), _attack(lab, asked), *images.tensors())
    return {"share": shares["robust"], "images": len(images)}


def _attack(lab: RobustLab, asked: Strongest) -> AutoAttack:
    return AutoAttack(
        **_ball(lab), stages=asked.stages, steps=asked.steps, execution="fast", seed=0
    )


def _ball(lab: RobustLab) -> dict[str, Any]:
    """That of the usual threat model."""
    usual = next(iter(lab.threats.values())).common
    return {"norm": usual["norm"], "eps": usual["eps"]}
