"""How the experiment's networks are trained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from experiments.lab import recipes
from experiments.lab.threats import Threat
from repsim_fast.training import methods

STANDARD, PGD, N_FGSM, MIXED = "standard", "pgd", "n-fgsm", "mixed"


@dataclass(frozen=True, kw_only=True)
class Recipe(recipes.Recipe):
    """A network of a selectivity, or one made robust.

    Attributes:
        method: "standard", "pgd" or "n-fgsm" (against the usual threat model), or "mixed" (of
            images augmented by mixed chains).
        alpha: Of the regulariser.
        schedule: Of the learning rate, see ``repsim_fast.training.train``.
    """

    method: str = STANDARD
    alpha: float = 0.0
    schedule: str = "cosine"

    @property
    def kind(self) -> str:
        """How it is trained, for its name."""
        return f"{self.method}-{self.alpha:g}"


def method_of(recipe: Recipe, threats: Mapping[str, Threat]) -> methods.Method:
    """The training method of a recipe."""
    eps = threats[PGD].common["eps"]
    if recipe.method == PGD:
        return methods.build("pgd", eps=eps, **threats[PGD].train)
    if recipe.method == N_FGSM:  # as published, with which its figures were reached
        return methods.build("n-fgsm", eps=eps, model_mode="train", update_statistics=True)
    return methods.standard()
