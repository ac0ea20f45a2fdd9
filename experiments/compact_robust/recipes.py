"""How the experiment's networks are trained, one stage after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from torch import nn

from experiments.lab import recipes
from experiments.lab.threats import Threat
from repsim_fast import pruning
from repsim_fast.training import Ramp, methods

STANDARD, SMOOTHING = "standard", "smoothing"
LINF = "linf"

Stage = Literal["pretrain", "scores", "finetune"]
Criterion = Literal["magnitude", "filters"]


@dataclass(frozen=True, kw_only=True)
class Recipe(recipes.Recipe):
    """A network after one of its stages.

    Attributes:
        objective: "standard", "smoothing", or a method of ``repsim_fast.training`` against the
            threat model.
        stage: "pretrain" (from new weights), "scores" (which weights to keep), "finetune" (the
            kept weights).
        begins: The network after the stage before.
        sparsity: Share of weights that is pruned before the fine-tuning, or by learned scores;
            None for a fine-tuning of all weights.
        criterion: Which ones.
        ramp: Share of the epochs in which the radius of training grows from 0.
    """

    objective: str = STANDARD
    stage: Stage = "pretrain"
    begins: Recipe | None = None
    sparsity: float | None = None
    criterion: Criterion = "magnitude"
    ramp: float = 0.0

    @property
    def kind(self) -> str:
        """How it is trained, for its name."""
        if self.sparsity is None:
            return f"{self.objective}-{self.stage}"
        return f"{self.objective}-{self.stage}-{self.criterion}-{self.sparsity:g}"

    @property
    def after(self) -> tuple[Recipe, ...]:
        """The network after the stage before."""
        return () if self.begins is None else (self.begins,)


def method_of(recipe: Recipe, threats: Mapping[str, Threat], sigma: float) -> methods.Method:
    """The training method of a recipe.

    Raises:
        ValueError: No such objective.
    """
    if recipe.objective == STANDARD:
        return methods.standard()
    if recipe.objective == SMOOTHING:
        return methods.smoothing(sigma)
    threat = threats[LINF]
    eps = threat.common["eps"]
    if recipe.ramp:
        eps = Ramp(0.0, eps, end=recipe.ramp)
    return methods.build(recipe.objective, eps=eps, **threat.train)


def masks_of(
    recipe: Recipe,
) -> Callable[[nn.Module], AbstractContextManager[Any]] | None:
    """What masks the network while it is trained.

    What earlier stages pruned is 0, the smallest magnitude there is: pruned to the same sparsity
    again, it is the same, and to a higher one it stays pruned.
    """
    if recipe.sparsity is None:
        return None
    if recipe.stage == "scores":
        return partial(pruning.learned_scores, sparsity=recipe.sparsity)
    return partial(_pruned, sparsity=recipe.sparsity, criterion=recipe.criterion)


def _pruned(
    model: nn.Module, sparsity: float, criterion: Criterion
) -> AbstractContextManager[None]:
    pruning.prune(model, sparsity, criterion=criterion)
    return nullcontext()
