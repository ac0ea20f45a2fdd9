"""The lab of this experiment: networks trained with injected features, and what they go by."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.lab.comparisons import Comparison, LayerRule, compare_networks
from experiments.lab.datasets import DataSet
from experiments.lab.files import digest
from experiments.lab.lab import Lab
from experiments.lab.recipes import Training, usual_training
from experiments.lab.threats import Threat, pgd
from repsim_fast.analysis.dimensionality import dimensionality
from repsim_fast.analysis.estimates import Estimate, share
from repsim_fast.analysis.selectivity import selectivity
from repsim_fast.attacks import FGSM, PGD
from repsim_fast.data.interventions import (
    carriers_alone,
    complement,
    dct_carriers,
    inject,
    other_classes,
)
from repsim_fast.models.blocks import PreActBlock
from repsim_fast.training import Diagnostics, Evaluation, evaluate

from .presets import Preset
from .recipes import Filtered, Recipe, method_of

GREY = 0.5
UNKNOWN = float("nan")


def is_compared(name: str, module: nn.Module) -> bool:
    """What the stem and each block hand on, and the logits."""
    return name == "conv1" or isinstance(module, (PreActBlock, nn.Linear))


class OverfittingLab(Lab[Recipe, Preset]):
    """Networks of one preset and the sets that show what they use; see ``Lab``.

    Raises:
        ValueError: A grid with radii or amplitudes that are out of range or do not rise, without
            the cell of ``focus``, or images too small for the classes' carriers.
    """

    def __init__(self, preset: Preset, work: Path, **options: Any) -> None:
        _check(preset)
        super().__init__(preset, work, **options)
        _, channels, *size = self.train_data.images.shape
        n_classes = len(self.train_data.classes)
        self.carriers = dct_carriers(n_classes, (size[0], size[1]), channels)

    def threats_of(self, dataset: DataSet) -> Mapping[str, Threat]:
        """The attack of the evaluation, of the radius of ``focus``."""
        eps, steps = self.preset.focus[0] / 255, self.preset.attack_steps
        return {"linf": pgd("linf", eps, steps=(steps, steps), step_sizes=(eps / 4, eps / 4))}

    @property
    def layers(self) -> LayerRule:
        """Stem, blocks and logits."""
        return is_compared

    def training(self, recipe: Recipe) -> Training:
        """What a recipe asks for."""
        asked = usual_training(
            recipe,
            self.train_data,
            evaluation=Evaluation(),
            method=method_of(recipe),
            schedule="cyclic",
        )
        return dataclasses.replace(asked, data=self.changed(asked.data, recipe))

    def recipe(self, method: str = "fgsm", **changes: Any) -> Recipe:
        """A recipe of the preset's sizes; the default is FGSM at ``focus``."""
        preset = self.preset
        eps, beta = preset.focus
        usual = Recipe(
            dataset=self.training_set,
            architecture=preset.architecture,
            method=method,
            eps=eps,
            beta=beta,
            images=None,
            epochs=preset.epochs,
            batch_size=preset.batch_size,
            lr=preset.lr,
            seed=preset.seeds[0],
            keep=(),
            autocast=preset.autocast,
            size=self.dataset.size,
            steps=preset.training_steps if method == "pgd" else 1,
            alignment=preset.alignment if method == "gradalign" else 0.0,
        )
        recipe = dataclasses.replace(usual, **changes)
        plain = dataclasses.replace(usual, seed=recipe.seed, beta=recipe.beta)
        if method in ("fgsm", "pgd") and recipe == plain and recipe.beta in (0, beta):
            # Looked at along the way by other questions, which train them no second time.
            recipe = dataclasses.replace(recipe, keep=self.kept[:-1])
        return recipe

    @property
    def kept(self) -> tuple[int, ...]:
        """Epochs after which networks are looked at, the last among them."""
        epochs, every = self.preset.epochs, self.preset.every
        return (*range(every, epochs, every), epochs)

    def changed(self, images: Any, recipe: Recipe, **options: Any) -> tuple[Tensor, Tensor]:
        """Images as a recipe has them."""
        if recipe.removed:
            images = complement(images, self.carriers)
        return inject(images, recipe.beta / 255, self.carriers, **options)

    def network(self, recipe: Recipe, epoch: int | None = None) -> nn.Module:
        """The network after an epoch that is kept, behind its filter."""
        network = self.networks.load(recipe, epoch)
        if recipe.bandwidth is None:
            return network
        return Filtered(network, recipe.bandwidth, recipe.axes)

    def scores(self, recipe: Recipe, epoch: int | None = None) -> dict[str, Estimate]:
        """Accuracies on the recipe's test images, and what the network goes by.

        ``clean``, ``fgsm`` and ``robust`` (PGD) on images as in training; ``original`` on images
        without the feature; of images with another class's feature the shares that are taken for
        the class of the ``image`` and of the ``feature``; ``alone`` on grey and black images with
        the feature. Before the last epoch of few images only.
        """
        n = len(self.test_data)
        if epoch not in (None, recipe.epochs):
            n = min(n, self.preset.probed)
        preset = self.preset
        held = self.networks.measured(
            recipe,
            "scores",
            [recipe.name, epoch, n, preset.attack_steps, preset.restarts, self.dataset.name],
            lambda: self._scores(recipe, epoch, n),
        )
        return {name: share(value, count) for name, (value, count) in held.items()}

    def _scores(self, recipe: Recipe, epoch: int | None, n: int) -> dict[str, tuple[float, int]]:
        model, eps = self.network(recipe, epoch), recipe.eps / 255
        test = self.test_data.subset(n)
        own = self.changed(test, recipe)
        attacks = {
            "fgsm": FGSM(eps, outside="clip"),
            "robust": PGD(
                eps,
                steps=self.preset.attack_steps,
                step_size=eps / 4,
                restarts=self.preset.restarts,
                early_stop=True,
                outside="clip",
                seed=0,
            ),
        }
        with self._precision():
            under = evaluate(model, own, attacks, device=self.preset.device)
        carried = other_classes(test.labels, len(self.carriers))
        mixed, _ = self.changed(test, recipe, classes=carried)
        alone = [carriers_alone(recipe.beta / 255, self.carriers, background=b) for b in (0, GREY)]
        lone = tuple(torch.cat(parts) for parts in zip(*alone, strict=True))
        plain = dataclasses.replace(recipe, beta=0.0)
        sets = {
            "original": self.changed(test, plain),
            "image": (mixed, test.labels),
            "feature": (mixed, carried),
            "alone": lone,
        }
        found = {"clean": (under.clean, n), **{k: (v, n) for k, v in under.under.items()}}
        for name, images in sets.items():
            accuracy = evaluate(model, images, device=self.preset.device)
            found[name] = (accuracy.clean, accuracy.n)
        return found

    def geometry(self, recipe: Recipe, epoch: int) -> dict[str, float]:
        """Alignment, curvature and class selectivity after an epoch, see ``Diagnostics``."""
        preset = self.preset

        def measure() -> dict[str, float]:
            x, y = self.changed(self.test_data.subset(self._probed), recipe)
            model, eps, curved = self.network(recipe, epoch), recipe.eps / 255, preset.curved
            along = Diagnostics(x, y, eps=eps, curvature=False, outside="clip").measure(model)
            bent = Diagnostics(x[:curved], y[:curved], selectivity=False).measure(model)
            return {**along, **bent}

        about = [recipe.name, epoch, preset.curved, preset.probed, self.dataset.name]
        held = self.networks.measured(recipe, "geometry", about, measure)
        return {name: _number(value) for name, value in held.items()}

    def units(self, recipe: Recipe, epoch: int, beta: float) -> dict[str, dict[str, Estimate]]:
        """What the units of layers do after an epoch, on all test images with a feature of this
        amplitude: ``dimensions``, the participation ratio of each compared layer, and
        ``selectivity``, the mean class selectivity of each ReLU."""

        def measure() -> dict[str, Any]:
            images = inject(self.test_data, beta / 255, self.carriers)
            model, size = self.network(recipe, epoch), self.preset.compare_batch
            used = dimensionality(model, images, layers=self.layers, batch_size=size)
            chosen = selectivity(model, images, batch_size=size)
            ratios = {name: own.clean.participation_ratio for name, own in used.items()}
            return {
                "dimensions": {k: [e.value, e.standard_error] for k, e in ratios.items()},
                "selectivity": {name: [index, UNKNOWN] for name, index in chosen.layers.items()},
            }

        about = [epoch, beta, len(self.test_data), self.dataset.name]
        held = self.networks.measured(recipe, "units", about, measure)
        return {
            kind: {
                layer: Estimate(_number(value), _number(error))
                for layer, (value, error) in layers.items()
            }
            for kind, layers in held.items()
        }

    @property
    def _probed(self) -> int:
        return min(self.preset.probed, len(self.test_data))

    def compare_on(self, beta: float, views: Mapping[str, tuple[Recipe, int]]) -> Comparison:
        """CKA of all layers of networks on the test images with a feature of this amplitude."""
        about = [
            beta, {name: [recipe.name, epoch] for name, (recipe, epoch) in views.items()},
            len(self.test_data), self.preset.compare_batch,
        ]  # fmt: skip
        path = self.work / "comparisons" / f"{digest(about)}.safetensors"
        if not path.exists():
            compare_networks(
                {name: self.network(*view) for name, view in views.items()},
                inject(self.test_data, beta / 255, self.carriers)[0],
                {},
                layers=self.layers,
                batch_size=self.preset.compare_batch,
                device=self.preset.device,
            ).save(path)
        return Comparison.load(path)


def _check(preset: Preset) -> None:
    radii = [eps for eps, _ in preset.grid]
    if not radii or radii != sorted(set(radii)) or not 0 < radii[0] <= radii[-1] < 255:
        raise ValueError(f"grid: radii must rise within (0, 255), got {radii}")
    for eps, betas in preset.grid:
        if not betas or list(betas) != sorted(set(betas)) or not 0 <= betas[0] <= betas[-1] < 255:
            raise ValueError(f"grid: amplitudes at {eps:g} must rise within [0, 255), got {betas}")
    if preset.focus[1] not in dict(preset.grid).get(preset.focus[0], ()):
        raise ValueError(f"focus must be a cell of the grid, got {preset.focus}")


def _number(held: float | None) -> float:
    """As it was before it became JSON."""
    return UNKNOWN if held is None else held
