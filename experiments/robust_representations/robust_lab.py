"""The lab of this experiment: its networks by kind, its threat models, its layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from experiments.lab.comparisons import LayerRule
from experiments.lab.datasets import DataSet
from experiments.lab.lab import Lab
from experiments.lab.recipes import Training, usual_training
from experiments.lab.threats import Threat
from repsim_fast.training import Evaluation

from .presets import Preset
from .recipes import Recipe, method_of
from .threats import threats_of

_PAPER_LAYERS = (
    nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Linear,
)  # fmt: skip


def is_paper_layer(name: str, module: nn.Module) -> bool:
    """The layers that the paper compares."""
    return isinstance(module, _PAPER_LAYERS)


class RobustLab(Lab[Recipe, Preset]):
    """Standard and robust networks of one preset; see ``Lab``.

    Attributes:
        watched: Test images that are evaluated after an epoch, where a recipe asks for that.
    """

    def __init__(self, preset: Preset, work: Path, **options: Any) -> None:
        super().__init__(preset, work, **options)
        watched = min(preset.overfitting.watched, len(self.test_data))
        self.watched = self.test_data.subset(watched)

    def threats_of(self, dataset: DataSet) -> Mapping[str, Threat]:
        """See ``threats.threats_of``."""
        return threats_of(dataset)

    @property
    def layers(self) -> LayerRule:
        """Those of the paper."""
        return is_paper_layer

    def training(self, recipe: Recipe) -> Training:
        """What a recipe asks for."""
        return usual_training(
            recipe,
            self.train_data,
            evaluation=Evaluation(self.watched, self.threats["linf"].build(seed=0)),
            method=method_of(recipe, self.threats),
            schedule=recipe.schedule,
            augment=self.dataset.augment if recipe.augmented else None,
        )

    def recipe(self, method: str | None = None, *, swept: bool = False, **changes: Any) -> Recipe:
        """A recipe of the preset's sizes; the default is the robust network of most questions.

        Args:
            method: Default: the preset's of robust networks, or "adversarial" for another threat
                model than the usual one.
            swept: Of the sizes of questions 4 to 6.
            changes: Other settings.
        """
        preset = self.preset
        if method is None:
            usual_threat = changes.get("threat", preset.threats[0]) == preset.threats[0]
            method = preset.robust if usual_threat else "adversarial"
        if swept and preset.sweep is not None:
            changes = {**dataclasses.asdict(preset.sweep), **changes}
        usual = Recipe(
            dataset=self.training_set,
            architecture=preset.architecture,
            method=method,
            threat=preset.threats[0],
            radius=1.0,
            images=None,
            epochs=preset.epochs,
            batch_size=preset.batch_size,
            lr=preset.lr,
            seed=preset.seeds[0],
            keep=(),
            autocast=preset.autocast,
            size=self.dataset.size,
            steps=preset.attack_steps if method in ("adversarial", "trades") else None,
            schedule=preset.schedule,
        )
        recipe = dataclasses.replace(usual, **changes)
        # The usual networks are kept along the way for question 7; no other question trains them
        # a second time for that.
        if recipe == dataclasses.replace(usual, seed=recipe.seed):
            recipe = dataclasses.replace(recipe, keep=self.kept_epochs)
        return recipe

    @property
    def kept_epochs(self) -> tuple[int, ...]:
        """Epochs of question 7, without the last."""
        return tuple(sorted({round(f * self.preset.epochs) for f in self.preset.kept}))

    def robust(self, seed: int | None = None, *, swept: bool = False) -> Recipe:
        """The robust network, of a seed."""
        return self.recipe(seed=self.preset.seeds[0] if seed is None else seed, swept=swept)

    def standard(self, seed: int | None = None, *, swept: bool = False) -> Recipe:
        """The standard network, of a seed."""
        seed = self.preset.seeds[0] if seed is None else seed
        return self.recipe("standard", seed=seed, swept=swept)

    def overfitting(self) -> Recipe:
        """The network of question 3, trained against PGD: single steps can fail in other ways."""
        setting = self.preset.overfitting
        return self.recipe(
            "adversarial",
            images=setting.images,
            epochs=setting.epochs,
            watch=setting.every,
            keep=tuple(range(setting.every, setting.epochs, setting.every)),
            batch_size=setting.batch_size or self.preset.batch_size,
            schedule=setting.schedule or self.preset.schedule,
            augmented=setting.augmented,
        )
