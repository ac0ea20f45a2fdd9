"""The data sets, and the threat models scaled to each of them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repsim_fast import attacks

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Threat:
    """An attack, its published settings for training and for evaluation, and its radius.

    ``radius`` names the setting that a strength multiplies.
    """

    attack: str
    radius: str
    common: Mapping[str, Any]
    train: Mapping[str, Any]
    evaluate: Mapping[str, Any]

    def build(self, *, strength: float = 1.0, training: bool = False, seed: Any = 0) -> Any:
        """The attack, with its radius (and step, which is in its units) times ``strength``."""
        settings = {**self.common, **(self.train if training else self.evaluate)}
        settings[self.radius] *= strength
        if self.attack == "RotationTranslation":
            settings["max_rotation"] *= strength
        elif "step_size" in settings and self.attack == "PGD":
            settings["step_size"] *= strength
        return getattr(attacks, self.attack)(**settings, seed=seed)


def _pgd(norm: str, eps: float, steps: tuple[int, int], sizes: tuple[float, float]) -> Threat:
    return Threat(
        "PGD",
        "eps",
        # The same function in another order of rounding, in two thirds of the time.
        {"norm": norm, "eps": eps, "execution": "fast"},
        {"steps": steps[0], "step_size": sizes[0]},
        {"steps": steps[1], "step_size": sizes[1]},
    )


def _rendered(attack: str, eps: float, sizes: tuple[float, float], **common: Any) -> Threat:
    return Threat(
        attack,
        "eps",
        {"eps": eps, **common},
        {"steps": 4, "step_size": sizes[0]},
        {"steps": 10, "step_size": sizes[1]},
    )


def _moved(pixels: float, degrees: float, grid: int) -> Threat:
    return Threat(
        "RotationTranslation",
        "max_translation",
        {"max_translation": pixels, "max_rotation": degrees},
        {"n_random": 10},
        {"grid": grid},
    )


# Cianfarani et al., 2022, released configuration for CIFAR-10.
PUBLISHED = {
    "linf": _pgd("linf", 0.031, (10, 20), (0.0078, 0.0078)),
    "l2": _pgd("l2", 1.0, (10, 20), (0.2, 0.1)),
    "snow": _rendered("SnowAttack", 2.0, (0.16, 0.1), budget=0.15),
    "jpeg": _rendered("JPEGAttack", 25.0, (1.6, 1.0)),
    "gabor": _rendered("GaborAttack", 75 / 255, (0.08, 0.05)),
    "tr": _moved(5.0, 30.0, 5),
}

# Digits are 8x8, almost black and white and easy: radii of the same effect are larger for pixels
# and smaller for moves. Four attack steps in training are enough there.
DIGITS = {
    "linf": _pgd("linf", 0.2, (4, 10), (0.08, 0.05)),
    "l2": _pgd("l2", 1.0, (4, 10), (0.4, 0.25)),
    "snow": _rendered("SnowAttack", 2.0, (0.16, 0.1), budget=0.15),
    "jpeg": _rendered("JPEGAttack", 12.0, (3.0, 2.0)),
    "gabor": _rendered("GaborAttack", 75 / 255, (0.25, 0.1)),
    "tr": _moved(1.0, 15.0, 3),
}


@dataclass(frozen=True)
class DataSet:
    """Where a data set is and how it is attacked and augmented."""

    name: str
    spec: str
    threats: Mapping[str, Threat]
    augment: str | None
    size: int | None = None


def data_root() -> Path:
    """Folder of the parquet data sets: $REPSIM_DATA, or ``shared/data`` beside the repository."""
    return Path(os.environ.get("REPSIM_DATA", REPOSITORY.parent / "shared" / "data"))


def find(name: str, *, size: int | None = None) -> DataSet:
    """A data set by its name, or any source that ``repsim_fast.data.load`` reads.

    Raises:
        ValueError: Its folder is not there.
    """
    if name == "digits":
        return DataSet("digits", "digits", DIGITS, None)
    known = data_root() / name
    if name in ("cifar10", "tiny-imagenette"):
        if not known.is_dir():
            raise ValueError(
                f"{name} is not at {known}: set REPSIM_DATA to the folder that holds {name}/ "
                "with its parquet files, or name a source that repsim_fast.data reads"
            )
        return DataSet(name, str(known), PUBLISHED, "crop+flip", size)
    short = (
        name.rstrip("/").replace("\\", "/").rpartition("/")[2].partition(":")[2] or Path(name).name
    )
    return DataSet(short, name, PUBLISHED, "crop+flip", size)
