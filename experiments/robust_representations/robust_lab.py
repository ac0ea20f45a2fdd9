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
            augment=self.dataset.augment,
        )

    def recipe(self, method: str = "adversarial", **changes: Any) -> Recipe:
        """A recipe of the preset's sizes; the default is the robust network of most questions."""
        preset = self.preset
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

    def robust(self, seed: int | None = None) -> Recipe:
        """The robust network, of a seed."""
        return self.recipe(seed=self.preset.seeds[0] if seed is None else seed)

    def standard(self, seed: int | None = None) -> Recipe:
        """The standard network, of a seed."""
        return self.recipe("standard", seed=self.preset.seeds[0] if seed is None else seed)
