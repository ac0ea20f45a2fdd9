"""What `repsim-fast train` trains and how, from its options or a published recipe."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from repsim_fast import models
from repsim_fast.training import Optimisation, methods, recipes

Out = Annotated[Path, typer.Option(metavar="FILE", help="Checkpoint to write, *.safetensors.")]
ModelName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"Network: {', '.join(models.available())}. Capitals stand for numbers or names "
        "of your choice, as in wrn-28-10 or torchvision:resnet18. Not needed with --preset.",
    ),
]
Preset = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Train by a published recipe for CIFAR-10, which sets network, method and "
        f"schedule: {', '.join(recipes.available())}. --model, --epochs, --batch-size, --lr, "
        "--augment and --ema given beside it count.",
    ),
]
MethodName = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help=f"How to train: {', '.join(methods.available())}. All but 'standard', 'noise' "
        "and 'smoothing' are adversarial.",
    ),
]
AttackSteps = Annotated[
    int | None,
    typer.Option(
        min=1, metavar="N", help="Attack steps in training, of pgd, trades and mart (default: 10)."
    ),
]
Epochs = Annotated[int, typer.Option(min=1, metavar="N", help="Times through the images.")]
BatchSize = Annotated[int, typer.Option(min=1, metavar="N", help="Images a step.")]
Rate = Annotated[float, typer.Option(metavar="RATE", help="Highest learning rate.")]
Augment = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Vary the training images: 'crop' (small shifts) or 'crop+flip' (default: no).",
    ),
]
Average = Annotated[
    float | None,
    typer.Option(
        metavar="DECAY",
        help="Evaluate and save a running average of the weights, which keeps the share DECAY "
        "of itself in each step, as in 0.999 (default: no average).",
    ),
]
Limit = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Train on only N images, drawn at random."),
]
TestLimit = Annotated[
    int, typer.Option(min=1, metavar="N", help="Test images for the accuracies, at most.")
]
VALIDATION = 0.1
Validation = Annotated[
    float | None,
    typer.Option(
        metavar="SHARE",
        help="Share of the training images that is not trained on: the accuracies of each epoch, "
        f"and the choice of the best one, are of these (default: {VALIDATION:g}). 0 takes the test "
        "images, as the recipes of --preset publish (their default).",
    ),
]
Resume = Annotated[
    bool | None,
    typer.Option(
        "--resume/--no-resume",
        help="Go on with an interrupted training, or start it over.",
        show_default=False,
    ),
]


@dataclass(frozen=True)
class Setup:
    """What is trained and how.

    Attributes:
        model: Name of the network.
        method: Name of the training method.
        method_options: Its settings.
        eps: Radius of the attack that measures robust accuracy.
        optimisation: How the weights move.
        settings: Further arguments of ``training.train``.
    """

    model: str
    method: str
    method_options: Mapping[str, Any]
    eps: float
    optimisation: Optimisation
    settings: Mapping[str, Any]

    def with_autocast(self, dtype: torch.dtype | None) -> Setup:
        """The same in mixed precision."""
        return replace(self, optimisation=replace(self.optimisation, autocast=dtype))


def of_options(
    model: str | None, method: str, eps: float, steps: int | None, settings: Mapping[str, Any]
) -> Setup:
    """The set-up that the options name.

    Args:
        settings: epochs, batch_size, lr, augment and ema.

    Raises:
        ValueError: No network or no such method, or an option that the method does not have.
    """
    options = _method_options(method, eps, steps)
    rest, ema = dict(settings), settings["ema"]
    del rest["ema"]
    return Setup(_named(model), method, options, eps, Optimisation(ema=ema), rest)


def of_recipe(
    name: str, model: str | None, eps: float, settings: Mapping[str, Any], typed: set[str]
) -> Setup:
    """A recipe's set-up, with what was typed in its place.

    Args:
        settings: As for ``of_options``.
        typed: Names of the options that stand on the command line.

    Raises:
        ValueError: No such recipe, or an option that is the recipe's to decide.
    """
    recipe = recipes.get(name)
    for option in ("method", "eps", "attack_steps"):
        if option in typed:
            raise ValueError(f"--{option.replace('_', '-')} is the preset's: leave out one of them")
    rest = {**recipe.settings, **{name: settings[name] for name in settings.keys() & typed}}
    optimisation = rest.pop("optimisation")
    if "ema" in rest:
        optimisation = replace(optimisation, ema=rest.pop("ema"))
    return Setup(
        _named(model or recipe.model),
        rest.pop("method"),
        rest.pop("method_options", {}),
        recipe.eps or eps,
        optimisation,
        rest,
    )


def typed_options(context: typer.Context) -> set[str]:
    """Names of the options that stand on the command line."""
    return {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }


def _named(model: str | None) -> str:
    if model is None:
        raise ValueError("--model: name a network, or a --preset")
    return model


def _method_options(method: str, eps: float, steps: int | None) -> dict[str, Any]:
    """What of the command line is a setting of the method.

    Raises:
        ValueError: No such method, or --attack-steps for one that has none.
    """
    if method not in methods.available():
        raise ValueError(
            f"--method must be one of {', '.join(methods.available())}, got {method!r}"
        )
    settings = inspect.signature(getattr(methods, method.replace("-", "_"))).parameters
    options: dict[str, Any] = {"eps": eps} if "eps" in settings else {}
    if steps is not None:
        if "steps" not in settings:
            raise ValueError(f"--attack-steps: method {method!r} has a fixed number of steps")
        options["steps"] = steps
    return options
