"""The experiment's lab: networks by alpha, and what is measured of each of them, kept."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from experiments.lab import datasets
from experiments.lab.comparisons import LayerRule
from experiments.lab.datasets import DataSet
from experiments.lab.lab import Lab, View
from experiments.lab.recipes import Training, usual_training
from experiments.lab.threats import Threat, pgd
from repsim_fast.analysis.estimates import Estimate, share
from repsim_fast.analysis.units import is_relu
from repsim_fast.data import augmentation
from repsim_fast.training import Diagnostics, Evaluation, Optimisation, SelectivityRegulariser

from . import corruptions, presets, published
from .mixing import mixed_chains
from .presets import Preset
from .published import Published
from .recipes import MIXED, PGD, STANDARD, Recipe, method_of

FGSM = "fgsm"
# Of the corrupted images whose change in representation is measured, all kinds among them.
SEVERITY = 3
PUBLISHED = "published"


class SelectivityLab(Lab[Recipe, Preset]):
    """Networks of one preset; see ``Lab``."""

    def __init__(self, preset: Preset, work: Path, **options: Any) -> None:
        super().__init__(preset, work, **options)
        self._corrupted: dict[tuple[str, int], tuple[Tensor, Tensor]] = {}

    def threats_of(self, dataset: DataSet) -> Mapping[str, Threat]:
        """Linf by PGD and by one step; digits, almost black and white, take larger radii."""
        eps = 0.2 if dataset.name == "digits" else 8 / 255
        threat = pgd("linf", eps, steps=(5, 10), step_sizes=(eps / 3, eps / 4))
        return {PGD: threat, FGSM: Threat("FGSM", ("eps",), {"eps": eps}, {}, {})}

    @property
    def layers(self) -> LayerRule:
        """Those whose units' selectivity is measured."""
        return is_relu

    def training(self, recipe: Recipe) -> Training:
        """What a recipe asks for; the selectivity of each epoch is logged."""
        augment: Any = self.dataset.augment
        if recipe.method == MIXED:
            augment = mixed_chains(augmentation.get(augment))
        penalties = (SelectivityRegulariser(recipe.alpha),) if recipe.alpha else ()
        asked = usual_training(
            recipe,
            self.train_data,
            evaluation=Evaluation(self.test_data),
            optimisation=Optimisation(weight_decay=1e-4, regularisers=penalties),
            method=method_of(recipe, self.threats),
            schedule=recipe.schedule,
            augment=augment,
        )
        x, y = self.images()
        some = slice(self.preset.watched)
        watch = Diagnostics(x[some], y[some], curvature=False, batch_size=self.preset.compare_batch)
        return dataclasses.replace(asked, on_epoch=watch)

    def recipe(self, alpha: float = 0.0, *, method: str = STANDARD, seed: int) -> Recipe:
        """A recipe of the preset's sizes."""
        preset = self.preset
        return Recipe(
            dataset=self.training_set,
            architecture=preset.architecture,
            images=None,
            epochs=preset.epochs,
            batch_size=preset.batch_size,
            lr=preset.lr,
            seed=seed,
            keep=(),
            autocast=preset.autocast,
            size=self.dataset.size,
            method=method,
            alpha=alpha,
            schedule=preset.schedule,
        )

    def of_alpha(self, alpha: float) -> list[Recipe]:
        """The networks of an alpha, one a seed."""
        preset = self.preset
        compared = alpha in (preset.low, 0.0, preset.high)
        seeds = preset.seeds if compared else preset.seeds[: preset.swept_seeds]
        return [self.recipe(alpha, seed=seed) for seed in seeds]

    def of_method(self, method: str) -> list[Recipe]:
        """Networks without the regulariser, trained by a method, one a seed."""
        return [self.recipe(method=method, seed=seed) for seed in self.preset.seeds]

    def model_of(self, recipe: Recipe) -> nn.Module:
        """The trained network, in eval mode."""
        return self.model(View("", recipe)).eval()

    def clean(self, recipe: Recipe) -> Estimate:
        """Accuracy on the test images."""

        def measure() -> float:
            return float(self._correct(self.model_of(recipe), *self.images()).float().mean())

        n = len(self.test_data)
        return share(self.networks.measured(recipe, "clean", self.preset.test_images, measure), n)

    def adversarial(self, recipe: Recipe) -> Tensor:
        """The test images, attacked by PGD at the largest radius."""
        view = View("", recipe, threat=PGD, strength=max(self.preset.radii))
        images = self.examples(view)
        self._examples.clear()  # of every network and radius they would fill the memory
        return images

    def attacked(self, recipe: Recipe, threat: str, strength: float) -> Estimate:
        """Robust accuracy at a multiple of the radius."""
        found = self.accuracy(recipe, threat, strength)["robust"]
        self._examples.clear()
        return found

    @property
    def corruption_source(self) -> str:
        """Where corrupted images of question 2 come from."""
        return self.preset.corruptions if self.published is None else PUBLISHED

    @functools.cached_property
    def published(self) -> Published | None:
        """Published images of question 2, of the size of the preset's."""
        found = published.find(self.dataset.name, datasets.data_root())
        return found if found and found.size == self.test_data.images.shape[-1] else None

    def corruption_kinds(self) -> tuple[str, ...]:
        """Their kinds."""
        if self.published is not None:
            return self.published.kinds
        return corruptions.kinds(self.preset.corruptions)

    def corrupted(self, kind: str, severity: int) -> tuple[Tensor, Tensor]:
        """Images of question 2 and their labels, made once; in bytes, as published."""
        key = kind, severity
        if key not in self._corrupted:
            x, y = self.images()
            if self.published is not None:
                x, y = self.published.images(kind, severity, len(x))
            else:
                x = corruptions.corrupted(self.preset.corruptions, kind, severity, x)
            self._corrupted[key] = (x * 255).round().byte(), y
        pixels, y = self._corrupted[key]
        return pixels.float() / 255, y

    def under_corruption(self, recipe: Recipe) -> dict[str, list[float]]:
        """Accuracy by kind, at each severity."""

        def measure() -> dict[str, list[float]]:
            model = self.model_of(recipe)
            return {
                kind: [
                    float(self._correct(model, *self.corrupted(kind, s)).float().mean())
                    for s in corruptions.SEVERITIES
                ]
                for kind in self.corruption_kinds()
            }

        settings = [self.corruption_source, self.preset.test_images]
        found: dict[str, list[float]] = self.networks.measured(
            recipe, "corruptions", settings, measure
        )
        return found

    def blended(self) -> Tensor:
        """The test images, each corrupted by one of all kinds at the middle severity."""
        x, _ = self.images()
        source = self.preset.corruptions
        return corruptions.blend(
            [corruptions.corrupted(source, k, SEVERITY, x) for k in corruptions.kinds(source)]
        )


def check(lab: SelectivityLab) -> None:
    """What the questions need is there.

    Raises:
        ValueError: Settings that no question can be answered with.
        ImportError: Corruptions need a package that is missing.
    """
    preset = lab.preset
    if missing := {preset.low, 0.0, preset.high} - set(preset.alphas):
        raise ValueError(f"alphas must have low, 0 and high, lacks {sorted(missing)}")
    if len(lab.test_data) < preset.gradient_images:
        raise ValueError(
            f"gradients need {preset.gradient_images} test images, got {len(lab.test_data)}"
        )
    try:
        lab.corruption_kinds()
        corruptions.kinds(preset.corruptions)
    except ImportError as error:
        raise ImportError(
            f"{error}; --preset {presets.WITHOUT_PACKAGE} does without, of six kinds instead of 19"
        ) from None
