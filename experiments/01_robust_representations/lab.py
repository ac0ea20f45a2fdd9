"""What questions work with: networks by recipe, comparisons of them, places for results."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from repsim_fast import compare, data
from repsim_fast.results import Grid

from . import datasets, indices
from .indices import Estimate, Matrix
from .networks import Networks, Recipe, digest
from .presets import Preset

_PAPER_LAYERS = (
    nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Linear,
)  # fmt: skip


def is_paper_layer(name: str, module: nn.Module) -> bool:
    """The layers that the paper compares."""
    return isinstance(module, _PAPER_LAYERS)


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


@dataclass(frozen=True, eq=False)
class Comparison:
    """CKA of all layers of all views, with the values that leave out one batch of images each.

    Attributes:
        value: (L, L) over the layers of all views.
        replicates: (batches, L, L).
    """

    views: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    value: Matrix
    replicates: Matrix

    def stages(self, view: str) -> tuple[str, ...]:
        """Stage of each layer of a view."""
        return indices.stages_of(self.layers[self.views.index(view)])

    def estimate(self, index: Callable[..., float], *pairs: tuple[str, str]) -> Estimate:
        """A function of the grids of pairs of views, with its jackknife standard error.

        The replicates are those of the same images, so that differences of grids come out with
        the error of the difference.
        """
        cells = [self._cells(a, b) for a, b in pairs]
        value = index(*(self.value[c] for c in cells))
        return indices.jackknife(value, [index(*(r[c] for c in cells)) for r in self.replicates])

    def curve(self, index: Callable[..., Matrix], *pairs: tuple[str, str]) -> list[Estimate]:
        """The same for a function with many values."""
        cells = [self._cells(a, b) for a, b in pairs]
        value = index(*(self.value[c] for c in cells))
        left_out = np.array([index(*(r[c] for c in cells)) for r in self.replicates])
        return [indices.jackknife(v, left_out[:, i]) for i, v in enumerate(value)]

    def grid(self, a: str, b: str) -> Grid:
        """For plotting."""
        cells = self._cells(a, b)
        left_out = self.replicates[(slice(None), *cells)]
        g = len(left_out)
        se = np.sqrt(np.square(left_out - left_out.mean(0)).sum(0) * (g - 1) / g)
        rows, columns = (self.layers[self.views.index(v)] for v in (a, b))
        return Grid(a, b, rows, columns, self.value[cells], se, "cka")

    def _cells(self, a: str, b: str) -> Any:
        starts = np.cumsum([0, *map(len, self.layers)])
        i, j = self.views.index(a), self.views.index(b)
        return np.ix_(range(starts[i], starts[i + 1]), range(starts[j], starts[j + 1]))


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
        # The networks that question 7 looks at along the way are those of the first seed.
        if recipe == dataclasses.replace(usual, method=method):
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
        return {
            name: Estimate(value, (value * (1 - value) / n) ** 0.5)
            for name, value in (("clean", clean), ("robust", robust_share))
        }

    def _correct(self, model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            parts = [model(part.to(self.preset.device)).argmax(1).cpu() for part in x.split(1000)]
        return torch.cat(parts) == y

    def compare(self, views: Sequence[View], trained_on: Recipe | None = None) -> Comparison:
        """CKA between all layers of all views on the same images, see ``images``.

        One pass over all images, and one without each batch for the jackknife; images of attacks
        are made once before.
        """
        preset = self.preset
        settings = [
            [dataclasses.asdict(view) for view in views],
            trained_on and dataclasses.asdict(trained_on),
            preset.test_images, preset.compare_batch, self.dataset.name,
        ]  # fmt: skip
        path = self.work / "comparisons" / f"{digest(settings)}.safetensors"
        if path.exists():
            return _load(path)
        named = {view.name: self.model(view) for view in views}
        x, _ = self.images(trained_on)
        looks = {v.name: _Look(self.examples(v)) for v in views if v.threat is not None}
        size = min(preset.compare_batch, len(x) // 2)  # a jackknife needs two batches
        batches = torch.arange(len(x)).split(size)
        if len(batches[-1]) < size:
            batches = batches[:-1]  # groups of a jackknife are of one size

        def cka(positions: Tensor) -> Any:
            return compare(
                named,
                # The positions stand in for labels: attacked images are looked up by them.
                data=(x[positions], positions),
                layers=is_paper_layer,
                inputs=looks or None,
                batch_size=size,
                device=preset.device,
            )

        whole = cka(torch.cat(batches))
        without = [
            cka(torch.cat([b for j, b in enumerate(batches) if j != i])).value
            for i in range(len(batches))
        ]
        found = Comparison(whole.models, whole.layers, whole.value, np.stack(without))
        _save(path, found)
        return found


class _Look:
    """A comparison's input transform: images that were made before, by position."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        return self.images[positions.cpu()].to(x.device)


def _save(path: Path, found: Comparison) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    labels = json.dumps({"views": found.views, "layers": found.layers})
    # float32 halves the folder; CKA is not known to seven digits.
    arrays = {
        "value": found.value.astype(np.float32),
        "replicates": found.replicates.astype(np.float32),
    }
    part = path.with_suffix(".part")
    save_file(arrays, part, {"labels": labels})
    part.replace(path)


def _load(path: Path) -> Comparison:
    with safe_open(path, framework="numpy") as file:
        labels = json.loads(file.metadata()["labels"])
        value, replicates = (file.get_tensor(n).astype(np.float64) for n in ("value", "replicates"))
    layers = tuple(map(tuple, labels["layers"]))
    return Comparison(tuple(labels["views"]), layers, value, replicates)


def _write(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)
