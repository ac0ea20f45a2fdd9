"""Recipes: all that a trained network depends on, as plain data, and what training makes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from repsim_fast import models
from repsim_fast.data import ImageData
from repsim_fast.training import Evaluation, Optimisation
from repsim_fast.training.callback import OnEpoch

from .files import digest


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything a trained network depends on; experiments add how their networks differ.

    Attributes:
        dataset: Name and number of the training images.
        architecture: See ``repsim_fast.models.build``.
        images: Training images, None for all.
        keep: Epochs after which the network is kept besides the last; 0 is the initialisation.
        size: Side that images are resized to.
        watch: Epochs between evaluations; 0 for none.
    """

    dataset: str
    architecture: str
    images: int | None
    epochs: int
    batch_size: int
    lr: float
    seed: int
    keep: tuple[int, ...]
    autocast: str | None
    size: int | None = None
    watch: int = 0

    @property
    def kind(self) -> str:
        """How it is trained, for its name."""
        return "network"

    @property
    def after(self) -> tuple[Recipe, ...]:
        """Of the networks that its training begins with."""
        return ()

    @property
    def name(self) -> str:
        """Short name with a hash of everything."""
        return f"{self.architecture}-{self.kind}-seed{self.seed}-{digest(self)}"


@dataclass(frozen=True)
class Training:
    """What a recipe asks for.

    Attributes:
        model: The network to train, as it is before.
        architecture: What ``repsim_fast.models.build`` makes it from.
        data: What it is trained on.
        options: Further arguments of ``repsim_fast.training.train``.
        on_epoch: As there; its figures come out of ``Networks.history``.
        masks: What masks weights of the model while it is trained, such as
            ``repsim_fast.pruning.learned_scores``; the network is kept as an ordinary one, with
            masked weights 0.
    """

    model: nn.Module
    architecture: Mapping[str, Any]
    data: Any
    options: Mapping[str, Any]
    on_epoch: OnEpoch | None = None
    masks: Callable[[nn.Module], AbstractContextManager[Any]] | None = None


def usual_training(
    recipe: Recipe,
    data: ImageData,
    *,
    evaluation: Evaluation,
    optimisation: Optimisation | None = None,
    begins: nn.Module | None = None,
    **options: Any,
) -> Training:
    """Training of the recipe's sizes, of a network of its architecture.

    Args:
        data: All training images.
        evaluation: What is measured after every ``recipe.watch`` epochs.
        optimisation: Beside the precision, which the recipe says.
        begins: The network that training begins with; default a new one.
        options: What else ``repsim_fast.training.train`` is told: method, schedule, augmentation.
    """
    architecture: dict[str, Any] = {
        "name": recipe.architecture,
        "num_classes": len(data.classes),
        "in_channels": data.images.shape[1],
    }
    if recipe.images is not None and recipe.images < len(data):
        data = data.subset(recipe.images)
    precision: Any = recipe.autocast
    if precision not in (None, "auto"):
        precision = getattr(torch, precision)
    usual = {
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "lr": recipe.lr,
        "seed": recipe.seed,
        "optimisation": replace(optimisation or Optimisation(), autocast=precision),
        "evaluation": replace(evaluation, every=recipe.watch) if recipe.watch else None,
    }
    model = models.build(**architecture, seed=recipe.seed) if begins is None else begins
    return Training(model, architecture, data, {**usual, **options})
