"""What questions work with: networks by recipe, comparisons of them, places for results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast import data

from . import datasets
from .comparing import Comparison, compare_networks
from .indices import Estimate, share
from .networks import Networks, Recipe, digest
from .presets import Preset


@dataclass(frozen=True)
class View:
    """A network, at an epoch, looking at benign images or at those of an attack on it.

    Attributes:
        name: Label in pictures and tables.
        epoch: One that the recipe keeps; None for the trained network.
        threat: Attack on this very network; None for benign images.
        strength: Multiple of the attack's radius.
    """

    name: str
    recipe: Recipe
    epoch: int | None = None
    threat: str | None = None
    strength: float = 1.0


class Lab:
    """Data, networks and comparisons of one preset, all kept so that an interrupted run goes on.

    Args:
        preset: Sizes.
        work: Folder of checkpoints and comparisons; not for version control.
        deadline: See ``Networks``.
    """

    def __init__(
        self, preset: Preset, work: Path, *, deadline: float | None = None, progress: bool = True
    ) -> None:
        self.preset = preset
        self.work = work
        self.dataset = datasets.find(preset.dataset, size=preset.image_size)
        load = {"size": self.dataset.size, "progress": progress}
        self.train_data = data.load(self.dataset.spec, "train", limit=preset.train_images, **load)
        self.test_data = data.load(self.dataset.spec, "test", **load)
        if preset.test_images < len(self.test_data):
            self.test_data = self.test_data.subset(preset.test_images)
        self.networks = Networks(
            work / "networks",
            self.dataset,
            self.train_data,
            self.test_data.subset(min(preset.overfitting.watched, len(self.test_data))),
            device=preset.device,
            deadline=deadline,
            progress=progress,
        )
        self._examples: dict[str, Tensor] = {}

    def recipe(self, method: str = "adversarial", **changes: Any) -> Recipe:
        """A recipe of the preset's sizes; the default is the robust network of most questions."""
        preset = self.preset
        usual = Recipe(
            dataset=f"{self.dataset.name} {len(self.train_data)}",
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
        if recipe == dataclasses.replace(usual, method=method, seed=recipe.seed):
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

    def images(self, trained_on: Recipe | None = None) -> tuple[Tensor, Tensor]:
        """Test images and labels, or those that a recipe is trained on (as many at most)."""
        held = self.test_data
        if trained_on is not None:
            everything = len(self.train_data)
            held = self.train_data.subset(min(trained_on.images or everything, len(held)))
        return held.tensors()

    def model(self, view: View) -> nn.Module:
        """The network of a view."""
        return self.networks.load(view.recipe, view.epoch)

    def examples(self, view: View) -> Tensor:
        """The test images as a view sees them, on the CPU."""
        x, y = self.images()
        if view.threat is None:
            return x
        # Views differ in name where they share what they look at.
        key = digest([dataclasses.asdict(view.recipe), view.epoch, view.threat, view.strength])
        if key not in self._examples:
            attack = self.dataset.threats[view.threat].build(strength=view.strength, seed=0)
            model, where = self.model(view), self.preset.device
            size = self.preset.compare_batch
            parts = [
                attack(model, a.to(where), b.to(where)).cpu()
                for a, b in zip(x.split(size), y.split(size), strict=True)
            ]
            self._examples[key] = torch.cat(parts)
        return self._examples[key]

    def accuracy(
        self, recipe: Recipe, threat: str = "linf", strength: float = 1.0
    ) -> dict[str, Estimate]:
        """Clean and robust accuracy on the test images, with binomial standard errors.

        Robust counts images that are classified correctly benign and attacked.
        """
        self.networks.train(recipe)
        key = f"accuracy-{threat}-{strength:g}-{self.preset.test_images}.json"
        path = self.networks.folder / recipe.name / key
        if not path.exists():
            model = self.networks.load(recipe)
            attacked = self.examples(View("", recipe, threat=threat, strength=strength))
            x, y = self.images()
            right = self._correct(model, x, y)
            robust = right & self._correct(model, attacked, y)
            scores = [float(right.float().mean()), float(robust.float().mean()), len(y)]
            _write(path, json.dumps(scores))
        clean, robust_share, n = json.loads(path.read_text())
        return {"clean": share(clean, n), "robust": share(robust_share, n)}

    def _correct(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [model(part.to(self.preset.device)).argmax(1).cpu() for part in x.split(1000)]
        return torch.cat(parts) == y

    def compare(self, views: Sequence[View], trained_on: Recipe | None = None) -> Comparison:
        """CKA between all layers of all views on the same images, see ``images``.

        Images of attacks are made once before.
        """
        preset = self.preset
        settings = [
            [dataclasses.asdict(view) for view in views],
            trained_on and dataclasses.asdict(trained_on),
            preset.test_images, preset.compare_batch, self.dataset.name,
        ]  # fmt: skip
        path = self.work / "comparisons" / f"{digest(settings)}.safetensors"
        if path.exists():
            return Comparison.load(path)
        found = compare_networks(
            {view.name: self.model(view) for view in views},
            self.images(trained_on)[0],
            {view.name: self.examples(view) for view in views if view.threat is not None},
            batch_size=preset.compare_batch,
            device=preset.device,
        )
        found.save(path)
        return Comparison.load(path)  # as rounded, so that a resumed run has the same digits


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
