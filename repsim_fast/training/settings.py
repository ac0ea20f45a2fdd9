"""What is measured and what is written while training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .evaluation import Attack
from .overfitting import OverfittingDetector

_ARCHITECTURE = {"name", "num_classes", "in_channels"}


@dataclass(frozen=True)
class Evaluation:
    """What is measured after an epoch.

    Attributes:
        data: Images evaluated, as ``train_data``; None for none. The best epoch is chosen by them:
            were they the test images, its figures would be too good.
        validation: Share of the training images, in [0, 1), that is evaluated in place of ``data``
            and not trained on: a random choice by ``seed``, of images in memory only.
        attack: Attack for their robust accuracy. A copy is used each time, so that a seeded attack
            draws the same random starts in every epoch.
        every: Epochs between evaluations; the last epoch always has one.
        detector: Catastrophic-overfitting detector, asked after each epoch.
        stop_on_overfitting: End the training when it finds something.

    Raises:
        ValueError: ``every`` below 1, a stop without a detector, a share out of range, or one
            beside ``data``.
    """

    data: Any = None
    attack: Attack | None = None
    every: int = 1
    detector: OverfittingDetector | None = None
    stop_on_overfitting: bool = False
    validation: float = 0.0

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
        if self.stop_on_overfitting and self.detector is None:
            raise ValueError("stop_on_overfitting needs a detector")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation must be a share in [0, 1), got {self.validation}")
        if self.validation and self.data is not None:
            raise ValueError("validation takes the place of data: give one of them")


@dataclass(frozen=True)
class Saving:
    """What is written while training.

    Attributes:
        folder: For best.safetensors and last.safetensors (weights for use) and resume.safetensors,
            each replaced as a whole after each epoch; None for none of them. "best" is the epoch
            of the highest robust (else clean) accuracy on the images of ``Evaluation``.
        architecture: name, num_classes and in_channels of ``models.build``: with them the weights
            are files that ``models.load_checkpoint`` reads.
        resume: Go on from resume.safetensors, where there is one; on CPU the result is that of an
            uninterrupted training, bit for bit. False starts over, whatever lies there; None, the
            default, starts where no unfinished training lies, and is an error where one does.
        log: JSON-lines file with one line an epoch.
        tensorboard: Folder for TensorBoard's event files.

    Raises:
        ValueError: ``resume`` without a folder, an architecture that lacks an entry.
    """

    folder: str | Path | None = None
    architecture: Mapping[str, Any] | None = None
    resume: bool | None = None
    log: str | Path | None = None
    tensorboard: str | Path | None = None

    def __post_init__(self) -> None:
        if self.resume and self.folder is None:
            raise ValueError("resume needs the folder to resume from")
        if self.architecture is not None and (lacking := _ARCHITECTURE - self.architecture.keys()):
            raise ValueError(
                f"architecture must have {sorted(_ARCHITECTURE)}, lacks {sorted(lacking)}"
            )
