"""How the experiment's networks are trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from experiments.lab import recipes
from experiments.lab.threats import Threat
from repsim_fast.training import methods


@dataclass(frozen=True, kw_only=True)
class Recipe(recipes.Recipe):
    """A standard or a robust network.

    Attributes:
        method: "standard", "adversarial" (examples of ``threat``), "trades" or "n-fgsm" (of the
            radius of "linf").
        threat: Threat model of adversarial training.
        radius: Multiple of its published radius.
        steps: Of a PGD attack in training, None for the threat model's number.
        schedule: Of the learning rate, see ``repsim_fast.training.train``.
        augmented: Whether images are augmented, as the data set says.
    """

    method: str
    threat: str
    radius: float
    steps: int | None = None
    schedule: str = "cosine"
    augmented: bool = True

    @property
    def kind(self) -> str:
        """How it is trained, for its name."""
        kind = self.method if self.method != "adversarial" else f"at-{self.threat}"
        return f"{kind}-{self.radius:g}"


def method_of(recipe: Recipe, threats: Mapping[str, Threat]) -> methods.Method:
    """The training method of a recipe."""
    if recipe.method == "standard":
        return methods.standard()
    if recipe.method == "adversarial":
        return _adversarial(recipe, in_steps(threats[recipe.threat], recipe.steps))
    linf = in_steps(threats["linf"], recipe.steps)
    eps = linf.common["eps"] * recipe.radius
    options: dict[str, Any]
    if recipe.method == "trades":
        size = eps / 4 * threats["linf"].train["steps"] / linf.train["steps"]
        options = {"steps": linf.train["steps"], "step_size": size, "execution": "fast"}
    else:  # as published, with which its figures were reached
        options = {"model_mode": "train", "update_statistics": True}
    return methods.build(recipe.method, eps=eps, **options)


def in_steps(threat: Threat, steps: int | None) -> Threat:
    """The threat model with so many attack steps in training, which go as far together.

    Others than PGD stay as they are: they have few steps, or none.
    """
    if steps is None or threat.attack != "PGD":
        return threat
    size = threat.train["step_size"] * threat.train["steps"] / steps
    return dataclasses.replace(threat, train={"steps": steps, "step_size": size})


def _adversarial(recipe: Recipe, threat: Threat) -> methods.Method:
    sample = threat.build(strength=recipe.radius, training=True)

    def perturb(model: nn.Module, batch: methods.TrainingBatch) -> Tensor:
        # Built anew from the batch's random numbers, so that resuming changes nothing.
        attack = threat.build(strength=recipe.radius, training=True, seed=batch.generator)
        examples: Tensor = attack(model, batch.x, batch.y)
        return examples

    plain = methods.adversarial(sample, name=f"at-{recipe.threat}")
    return dataclasses.replace(plain, perturb=perturb)
