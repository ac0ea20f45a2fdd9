"""The experiment's lab: networks after each stage, and how accurate they are."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Literal

from torch import Tensor, nn

from experiments.lab.comparisons import LayerRule
from experiments.lab.datasets import DataSet
from experiments.lab.figures import Figures
from experiments.lab.files import digest
from experiments.lab.lab import Lab, View
from experiments.lab.recipes import Training, usual_training
from experiments.lab.threats import Threat, pgd
from repsim_fast import pruning
from repsim_fast.analysis.estimates import share
from repsim_fast.analysis.units import is_relu
from repsim_fast.training import Evaluation, Optimisation
from repsim_fast.verification import certified_accuracy, certify, verified_accuracy

from .presets import Network, Preset
from .recipes import LINF, SMOOTHING, STANDARD, Recipe, masks_of, method_of

BENIGN, ERA, VRA = "benign", "era", "vra"

Way = Literal["magnitude", "learned", "filters", "iterative"]

# Probability that a certificate of smoothing is wrong, and draws that choose its class; as
# published (Cohen et al., 2019).
_ALPHA, _CHOOSING = 0.001, 100
_LOGITS = "fc"


class CompactLab(Lab[Recipe, Preset]):
    """Networks of one preset; see ``Lab``."""

    def threats_of(self, dataset: DataSet) -> Mapping[str, Threat]:
        """Linf by PGD."""
        preset = self.preset
        step = preset.eps / 4
        steps = (preset.training_steps, preset.attack_steps)
        return {LINF: pgd("linf", preset.eps, steps=steps, step_sizes=(step, step))}

    @property
    def layers(self) -> LayerRule:
        """ReLUs and logits."""
        return lambda name, module: is_relu(name, module) or name == _LOGITS

    def training(self, recipe: Recipe) -> Training:
        """What a recipe asks for."""
        asked = usual_training(
            recipe,
            self.train_data,
            evaluation=Evaluation(self.test_data),
            optimisation=Optimisation(weight_decay=1e-4),
            begins=None if recipe.begins is None else self.networks.load(recipe.begins),
            method=method_of(recipe, self.threats, self.preset.sigma),
            augment=self.dataset.augment,
        )
        return replace(asked, masks=masks_of(recipe))

    @property
    def network(self) -> Network:
        """The one of all questions."""
        preset = self.preset
        return Network(preset.architecture, preset.objective, preset.lr, preset.bounds)

    @property
    def standard(self) -> Network:
        """The same with standard training."""
        return replace(self.network, objective=STANDARD)

    def seeds(self, network: Network) -> tuple[int, ...]:
        """Seeds of a network."""
        another = network in self.preset.others
        return self.preset.seeds[: self.preset.other_seeds if another else None]

    def dense(self, network: Network, seed: int) -> Recipe:
        """Pre-trained."""
        preset = self.preset
        return Recipe(
            dataset=self.training_set,
            architecture=network.architecture,
            images=None,
            epochs=preset.epochs,
            batch_size=preset.batch_size,
            lr=network.lr,
            seed=seed,
            keep=(),
            autocast=preset.autocast,
            size=self.dataset.size,
            objective=network.objective,
            ramp=network.ramp,
        )

    def finetuned(self, begins: Recipe, objective: str | None = None) -> Recipe:
        """Trained further with all its weights."""
        preset = self.preset
        return replace(
            begins,
            epochs=preset.fine_epochs,
            lr=begins.lr * preset.fine_share,
            objective=objective or begins.objective,
            stage="finetune",
            begins=begins,
            ramp=0.0,
        )

    def pruned(
        self, dense: Recipe, sparsity: float, way: Way = "magnitude", objective: str | None = None
    ) -> Recipe:
        """A pre-trained network, pruned and fine-tuned."""
        preset = self.preset
        usual = replace(self.finetuned(dense, objective), sparsity=sparsity)
        if way == "filters":
            return replace(usual, criterion="filters")
        if way == "learned":
            scores = replace(usual, stage="scores", epochs=preset.score_epochs, lr=preset.score_lr)
            return replace(usual, begins=scores)
        if way == "iterative":
            last = dense
            for part in pruning.sparsities(sparsity, preset.rounds):
                epochs = preset.fine_epochs // preset.rounds
                last = replace(usual, begins=last, sparsity=part, epochs=epochs)
            return last
        return usual

    def model_of(self, recipe: Recipe) -> nn.Module:
        """The trained network, in eval mode."""
        return self.model(View("", recipe)).eval()

    def adversarial(self, recipe: Recipe) -> Tensor:
        """The test images, attacked."""
        images = self.examples(View("", recipe, threat=LINF))
        self._examples.clear()  # of every network they would fill the memory
        return images

    def accuracies(self, recipe: Recipe) -> Figures:
        """Benign, empirically robust and verifiably robust accuracy."""
        found = self.accuracy(recipe)
        self._examples.clear()
        verified = self._certified if recipe.objective == SMOOTHING else self._bounded
        return {
            BENIGN: found["clean"],
            ERA: found["robust"],
            VRA: share(verified(recipe), self._proven),
        }

    @property
    def radius(self) -> float:
        """Of verified bounds, Linf."""
        return self.preset.proof * self.preset.eps

    @property
    def l2_radius(self) -> float:
        """Of certificates, L2: the ball around that of verified bounds."""
        return self.radius * math.sqrt(self.test_data.images[0].numel())

    @property
    def _proven(self) -> int:
        return min(self.preset.proven, len(self.test_data))

    def _bounded(self, recipe: Recipe) -> float:
        known = {n.architecture: n.bounds for n in (*self.preset.others, self.network)}
        method = known[recipe.architecture]
        settings = [self._proven, self.radius, method]

        def measure() -> float:
            part = self.networks.folder / recipe.name / f"verifying-{digest(settings)}.json"
            found = verified_accuracy(
                self.model_of(recipe), self.test_data.subset(self._proven), self.radius,
                method=method, device=self.preset.device, resume=part,
            )  # fmt: skip
            return found.verified

        return float(self.networks.measured(recipe, "verified", settings, measure))

    def _certified(self, recipe: Recipe) -> float:
        preset = self.preset
        settings = [self._proven, self.l2_radius, preset.sigma, preset.draws, _ALPHA, _CHOOSING]

        def measure() -> float:
            x, y = (part[: self._proven] for part in self.images())
            with self._precision():
                found = certify(
                    self.model_of(recipe), x.to(preset.device), sigma=preset.sigma, n0=_CHOOSING,
                    n=preset.draws, alpha=_ALPHA, seed=0,
                )  # fmt: skip
            return float(certified_accuracy(found, y, [self.l2_radius]).accuracy[0])

        return float(self.networks.measured(recipe, "certified", settings, measure))

    def compact(self, recipe: Recipe) -> dict[str, float]:
        """Share of weights that is left, and bytes in compressed form over those of all."""

        def measure() -> dict[str, float]:
            left = pruning.report(self.model_of(recipe))
            return {
                "weights left": left.kept / left.weights,
                "bytes left": left.compressed_bytes / left.dense_bytes,
            }

        found: dict[str, float] = self.networks.measured(recipe, "compact", [], measure)
        return found


def check(lab: CompactLab) -> None:
    """The settings go with each other and with what can be trained.

    Raises:
        ValueError: They do not.
    """
    preset = lab.preset
    if not preset.sparsities or list(preset.sparsities) != sorted(set(preset.sparsities)):
        raise ValueError(f"sparsities must rise, got {preset.sparsities}")
    for name, some in (("focus", (preset.focus,)), ("filter_sparsities", preset.filter_sparsities)):
        if missing := set(some) - set(preset.sparsities):
            raise ValueError(f"{name}: {sorted(missing)} must be among {preset.sparsities}")
    if preset.fine_epochs % preset.rounds:
        raise ValueError(
            f"rounds: expected a divisor of {preset.fine_epochs} epochs, got {preset.rounds}"
        )
    if STANDARD in (preset.objective, *(other.objective for other in preset.others)):
        raise ValueError(f"objective must be a robust one, got {STANDARD!r}")
    for network in (lab.network, *preset.others):
        lab.training(lab.dense(network, preset.seeds[0]))
