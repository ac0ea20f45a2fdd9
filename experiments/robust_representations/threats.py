"""The paper's threat models, scaled to each data set; the usual one first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from experiments.lab.datasets import DataSet
from experiments.lab.threats import Threat, pgd


def _rendered(attack: str, eps: float, sizes: tuple[float, float], **common: Any) -> Threat:
    return Threat(
        attack,
        ("eps",),
        {"eps": eps, **common},
        {"steps": 4, "step_size": sizes[0]},
        {"steps": 10, "step_size": sizes[1]},
    )


def _moved(pixels: float, degrees: float, grid: int) -> Threat:
    return Threat(
        "RotationTranslation",
        ("max_translation", "max_rotation"),
        {"max_translation": pixels, "max_rotation": degrees},
        {"n_random": 10},
        {"grid": grid},
    )


# Cianfarani et al., 2022, released configuration for CIFAR-10.
PUBLISHED = {
    "linf": pgd("linf", 0.031, steps=(10, 20), step_sizes=(0.0078, 0.0078)),
    "l2": pgd("l2", 1.0, steps=(10, 20), step_sizes=(0.2, 0.1)),
    "snow": _rendered("SnowAttack", 2.0, (0.16, 0.1), budget=0.15),
    "jpeg": _rendered("JPEGAttack", 25.0, (1.6, 1.0)),
    "gabor": _rendered("GaborAttack", 75 / 255, (0.08, 0.05)),
    "tr": _moved(5.0, 30.0, 5),
}

# Digits are 8x8, almost black and white and easy: radii of the same effect are larger for pixels
# and smaller for moves. Four attack steps in training are enough there.
DIGITS = {
    "linf": pgd("linf", 0.2, steps=(4, 10), step_sizes=(0.08, 0.05)),
    "l2": pgd("l2", 1.0, steps=(4, 10), step_sizes=(0.4, 0.25)),
    "snow": _rendered("SnowAttack", 2.0, (0.16, 0.1), budget=0.15),
    "jpeg": _rendered("JPEGAttack", 12.0, (3.0, 2.0)),
    "gabor": _rendered("GaborAttack", 75 / 255, (0.25, 0.1)),
    "tr": _moved(1.0, 15.0, 3),
}


def threats_of(dataset: DataSet) -> Mapping[str, Threat]:
    """The threat models at radii that suit a data set."""
    return DIGITS if dataset.name == "digits" else PUBLISHED
