"""How the experiment's networks are trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

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
    """

    method: str
    threat: str
    radius: float

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
        return _adversarial(recipe, threats[recipe.threat])
    linf = threats["linf"]
    eps = linf.common["eps"] * recipe.radius
    options = {}
    if recipe.method == "trades":
        options = {"steps": linf.train["steps"], "step_size": eps / 4, "execution": "fast"}
    return methods.build(recipe.method, eps=eps, **options)


def _adversarial(recipe: Recipe, threat: Threat) -> methods.Method:
    sample = threat.build(strength=recipe.radius, training=True)

    def perturb(model: nn.Module, batch: methods.TrainingBatch) -> Tensor:
        # Built anew from the batch's random numbers, so that resuming changes nothing.
        attack = threat.build(strength=recipe.radius, training=True, seed=batch.generator)
        examples: Tensor = attack(model, batch.x, batch.y)
        return examples

    plain = methods.adversarial(sample, name=f"at-{recipe.threat}")
    return dataclasses.replace(plain, perturb=perturb)
