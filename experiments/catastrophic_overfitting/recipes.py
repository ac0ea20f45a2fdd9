"""How the experiment's networks are trained."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from experiments.lab import recipes
from repsim_fast.data.interventions import Axes, low_pass
from repsim_fast.training import methods

# As published: attacks see the batch's statistics, running averages the attacks' passes too, and
# what lies outside of [0, 1] is pulled back inside.
AS_PUBLISHED = {"model_mode": "train", "update_statistics": True, "outside": "clip"}


@dataclass(frozen=True, kw_only=True)
class Recipe(recipes.Recipe):
    """A network trained on images with an injected feature.

    Attributes:
        method: See ``repsim_fast.training.methods``.
        eps, beta: Radius and amplitude, in 1/255.
        steps: Of PGD.
        alignment: Weight of GradAlign.
        removed: Whether the images are without what they have of the carriers themselves.
        bandwidth: Frequencies that pass into the network; None for all.
        axes: See ``low_pass``.
    """

    method: str
    eps: float
    beta: float
    steps: int = 1
    alignment: float = 0.0
    removed: bool = False
    bandwidth: int | None = None
    axes: Axes = "both"

    @property
    def kind(self) -> str:
        """How it is trained, for its name."""
        return f"{self.method}-eps{self.eps:g}-beta{self.beta:g}"


class Filtered(nn.Module):
    """A network behind a low pass, which attacks do not get around."""

    def __init__(self, network: nn.Module, bandwidth: int, axes: Axes) -> None:
        super().__init__()
        self.network, self.bandwidth, self.axes = network, bandwidth, axes

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.network(low_pass(x, self.bandwidth, axes=self.axes))
        return logits


def method_of(recipe: Recipe) -> methods.Method:
    """The training method of a recipe."""
    if recipe.method == "standard":
        return methods.standard()
    options: dict[str, Any] = {"eps": recipe.eps / 255, **AS_PUBLISHED}
    if recipe.method == "pgd":
        options |= {"steps": recipe.steps, "step_size": 2.5 * recipe.eps / 255 / recipe.steps}
    if recipe.method == "gradalign":
        options["weight"] = recipe.alignment
    plain = methods.build(recipe.method, **options)
    if recipe.bandwidth is None:
        return plain
    bandwidth, axes = recipe.bandwidth, recipe.axes

    def perturb(model: nn.Module, batch: methods.TrainingBatch) -> Tensor:
        attacked = plain.perturb(Filtered(model, bandwidth, axes), batch)
        return low_pass(attacked, bandwidth, axes=axes)

    return dataclasses.replace(plain, perturb=perturb)
