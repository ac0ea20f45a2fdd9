"""Published training recipes for CIFAR-10, as the settings of `train`.

The sources evaluate the test images after each epoch, some choose the published epoch by them, and
train on all training images. To choose without a look at the test images, give
``Evaluation(validation=0.1)`` beside the settings.

Differences that remain: the networks here take images in [0, 1] where some of the sources normalise
them by mean and standard deviation first, and the random numbers are others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from repsim_fast._core.names import RECIPES, check_same

from . import schedules
from .optimisation import Optimisation


@dataclass(frozen=True)
class PublishedRecipe:
    """A published training.

    Attributes:
        source: Paper and code that the figures are from.
        model: Name for ``models.build``.
        eps: Linf radius of the training, in image units; None for standard training.
        settings: Arguments of ``train``, the method among them.

    Example:
        >>> from repsim_fast.training import recipes, train
        >>> recipe = recipes.get("pgd-rice2020")
        >>> train(network, images, **recipe.settings)  # doctest: +SKIP
    """

    source: str
    model: str
    eps: float | None
    settings: Mapping[str, Any] = field(default_factory=dict)


_COMMON = {"batch_size": 128, "augment": "crop+flip"}
# Where the source attacks the model in training mode, as it is.
_BATCH_STATISTICS = {"model_mode": "train", "update_statistics": True}

_RECIPES: dict[str, PublishedRecipe] = {
    "pgd-rice2020": PublishedRecipe(
        "Rice, Wong and Kolter, 'Overfitting in adversarially robust deep learning', 2020; "
        "locuslab/robust_overfitting, train_cifar.py",
        "preactresnet-18",
        8 / 255,
        _COMMON
        | {
            "method": "pgd",
            "method_options": {"eps": 8 / 255, "step_size": 2 / 255, "steps": 10}
            | _BATCH_STATISTICS,
            "epochs": 200,
            "lr": 0.1,
            "schedule": "step",
            "optimisation": Optimisation(momentum=0.9, weight_decay=5e-4),
        },
    ),
    "trades-zhang2019": PublishedRecipe(
        "Zhang et al., 'Theoretically principled trade-off between robustness and accuracy', 2019 "
        "(beta 6 of its main result); yaodongyu/TRADES, train_trades_cifar10.py",
        "wrn-34-10",
        0.031,
        _COMMON
        | {
            "method": "trades",
            "method_options": {"eps": 0.031, "step_size": 0.007, "steps": 10, "beta": 6.0},
            "epochs": 76,
            "lr": 0.1,
            "schedule": partial(schedules.step, milestones=(74 / 76,)),
            "optimisation": Optimisation(momentum=0.9, weight_decay=2e-4),
        },
    ),
    "mart-wang2020": PublishedRecipe(
        "Wang et al., 'Improving adversarial robustness requires revisiting misclassified "
        "examples', 2020; YisenWang/MART, train_resnet.py (there on a post-activation ResNet-18)",
        "preactresnet-18",
        0.031,
        _COMMON
        | {
            "method": "mart",
            "method_options": {"eps": 0.031, "step_size": 0.007, "steps": 10, "beta": 5.0},
            "epochs": 120,
            "lr": 0.01,
            "schedule": partial(schedules.step, milestones=(74 / 120, 89 / 120, 99 / 120)),
            "optimisation": Optimisation(momentum=0.9, weight_decay=3.5e-3),
        },
    ),
    "rs-fgsm-wong2020": PublishedRecipe(
        "Wong, Rice and Kolter, 'Fast is better than free: revisiting adversarial training', 2020; "
        "locuslab/fast_adversarial, CIFAR10/train_fgsm.py",
        "preactresnet-18",
        8 / 255,
        _COMMON
        | {
            "method": "rs-fgsm",
            "method_options": {"eps": 8 / 255, "relative_step": 1.25} | _BATCH_STATISTICS,
            "epochs": 15,
            "lr": 0.2,
            "schedule": "cyclic",
            "optimisation": Optimisation(momentum=0.9, weight_decay=5e-4),
        },
    ),
    "n-fgsm-dejorge2022": PublishedRecipe(
        "de Jorge et al., 'Make some noise: reliable and efficient single-step adversarial "
        "training', 2022; pdejorge/N-FGSM, train.py",
        "preactresnet-18",
        8 / 255,
        _COMMON
        | {
            "method": "n-fgsm",
            "method_options": {"eps": 8 / 255, "noise": 2.0} | _BATCH_STATISTICS,
            "epochs": 30,
            "lr": 0.2,
            "schedule": "cyclic",
            "optimisation": Optimisation(momentum=0.9, weight_decay=5e-4),
        },
    ),
    "gradalign-andriushchenko2020": PublishedRecipe(
        "Andriushchenko and Flammarion, 'Understanding and improving fast adversarial training', "
        "2020; tml-epfl/understanding-fast-adv-training",
        "preactresnet-18",
        8 / 255,
        _COMMON
        | {
            "method": "gradalign",
            "method_options": {"eps": 8 / 255, "weight": 0.2} | _BATCH_STATISTICS,
            "epochs": 30,
            "lr": 0.3,
            "schedule": partial(schedules.cyclic, peak=0.4),
            "optimisation": Optimisation(momentum=0.9, weight_decay=5e-4),
        },
    ),
    "standard-leavitt2020": PublishedRecipe(
        "Leavitt and Morcos, 'Selectivity considered harmful', 2020 (ResNet-20 on CIFAR-10)",
        "resnet-20",
        None,
        _COMMON
        | {
            "method": "standard",
            "epochs": 200,
            "lr": 0.1,
            "schedule": "step",
            "optimisation": Optimisation(momentum=0.9, weight_decay=1e-4),
        },
    ),
}
check_same(RECIPES, _RECIPES)


def available() -> list[str]:
    """Names that ``get`` knows."""
    return list(_RECIPES)


def get(name: str) -> PublishedRecipe:
    """A recipe by name.

    Raises:
        ValueError: Unknown name.
    """
    if name not in _RECIPES:
        raise ValueError(f"preset must be one of {', '.join(_RECIPES)}, got {name!r}")
    return _RECIPES[name]
