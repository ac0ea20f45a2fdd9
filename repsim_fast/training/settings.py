"""What is measured and what is written while training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repsim_fast._core.attacked import Attack
from repsim_fast.data.labelled import labelled

from .evaluation import attacks_by_name
from .named_sets import HELD_OUT, accuracy_name, check_names
from .overfitting import OverfittingDetector
from .written import in_full

_ARCHITECTURE = {"name", "num_classes", "in_channels"}


@dataclass(frozen=True)
class Evaluation:
    """What is measured after an epoch.

    Of several sets or attacks, each by a name of your choice, every set is evaluated clean and
    under every attack, and ``Epoch.accuracies`` has the accuracies by "SET", "SET/ATTACK", and
    where only one of the two is named "ATTACK" or "SET/attacked". The first set and attack are also
    ``clean_accuracy`` and ``robust_accuracy``.

    Attributes:
        data: Images evaluated, as ``train_data``, or a mapping from names to such; None for none.
            The best epoch is chosen by the first set: were these the test images, its figures would
            be too good.
        validation: Share of the training images, in [0, 1), that is evaluated and not trained on: a
            random choice by ``seed``, of images in memory only. In place of ``data``, or the first
            set, "validation", before those that it names.
        attack: Attack for their robust accuracy, or a mapping from names to attacks. A copy is used
            each time, so that a seeded attack draws the same random starts in every epoch.
        attacked: Names of the sets that are attacked; default all of them.
        best: Name of the accuracy that the best epoch is chosen by, as in ``Epoch.accuracies``;
            default the first set's robust (else clean) one.
        every: Epochs between evaluations; the last planned epoch always has one, not so one that a
            callback or ``stop_on_overfitting`` makes the last.
        detector: Catastrophic-overfitting detector, asked after each epoch.
        stop_on_overfitting: End the training when it finds something.

    Raises:
        ValueError: ``every`` below 1, a stop without a detector, an attack without images, a share
            out of range, or one beside ``data`` without names, names that cannot be told from
            others or do not exist.

    Example:
        >>> import torch
        >>> from repsim_fast.attacks import FGSM, PGD
        >>> clean, y = torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.int64)
        >>> evaluation = Evaluation(
        ...     {"clean": (clean, y), "dark": (0.3 * clean, y)},
        ...     {"pgd": PGD(8 / 255), "fgsm": FGSM(8 / 255)},
        ...     attacked=["clean"],
        ...     best="clean/fgsm",
        ... )
        >>> evaluation.names()
        ['clean', 'clean/pgd', 'clean/fgsm', 'dark']
    """

    data: Any = None
    attack: Attack | Mapping[str, Attack] | None = None
    every: int = 1
    detector: OverfittingDetector | None = None
    stop_on_overfitting: bool = False
    validation: float = 0.0
    attacked: Sequence[str] | None = None
    best: str | None = None

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"every must be at least 1, got {self.every}")
        if self.stop_on_overfitting and self.detector is None:
            raise ValueError("stop_on_overfitting needs a detector")
        if not 0 <= self.validation < 1:
            raise ValueError(f"validation must be a share in [0, 1), got {self.validation}")
        if self.validation and not isinstance(self.data, Mapping | None):
            raise ValueError(
                "validation takes the place of data without names: give one of them, or a mapping "
                "from names to sets beside it"
            )
        self._check_names()

    def _check_names(self) -> None:
        sets, attacks = self.sets(), attacks_by_name(self.attack)
        if isinstance(self.data, Mapping) and not self.data:
            raise ValueError("data: expected a set at least, got an empty mapping")
        if self.validation and isinstance(self.data, Mapping) and HELD_OUT in self.data:
            raise ValueError(f"data: {HELD_OUT!r} is the name of the images held out by validation")
        check_names("data", self.data)
        check_names("attack", self.attack)
        if unknown := sorted({*(self.attacked or ())} - sets.keys()):
            raise ValueError(f"attacked must name sets, some of {sorted(sets)}, got {unknown}")
        if attacks and not sets:
            raise ValueError(
                "attack: needs images to attack, got neither data nor validation: give one of them"
            )
        if self.attacked is not None and not attacks:
            raise ValueError("attacked needs an attack")
        if self.best is not None and self.best not in self.names():
            raise ValueError(f"best must be one of {self.names()}, got {self.best!r}")

    def sets(self) -> Mapping[str, Any]:
        """What is evaluated by name, the empty one for a set without; images yet to be held out are
        None."""
        named = self.data if isinstance(self.data, Mapping) else {}
        if self.validation:
            return {HELD_OUT if named else "": None, **named}
        return named or ({} if self.data is None else {"": self.data})

    def held_out(self, images: Any) -> Evaluation:
        """The same with ``images`` as those that ``validation`` asks for."""
        named = {HELD_OUT: images, **self.data} if self.data else images
        return replace(self, data=named, validation=0.0)

    def described(self) -> dict[str, Any]:
        """What a resumed training must have in common with it, as JSON holds it: the images that
        ``validation`` asks for are held out by now."""
        return {
            "sets": [[name, labelled(data).description] for name, data in self.sets().items()],
            "attacks": [[name, in_full(one)] for name, one in attacks_by_name(self.attack).items()],
            "attacked": None if self.attacked is None else sorted(self.attacked),
            "best": self.best,
            "every": self.every,
            "detector": None if self.detector is None else in_full(self.detector),
        }

    def attacks_on(self, name: str) -> Mapping[str, Attack]:
        """Attacks on the set of that name."""
        chosen = self.attacked is None or name in self.attacked
        return attacks_by_name(self.attack) if chosen else {}

    def names(self) -> list[str]:
        """What ``Epoch.accuracies`` will have."""
        names = [
            accuracy_name(one, attack)
            for one in self.sets()
            for attack in (None, *self.attacks_on(one))
        ]
        return [name for name in names if name is not None]


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
            default, starts where no unfinished training lies, and is an error where one does. What
            trains and what measures must be as before, but for the seeds of attacks, and a detector
            may come later; of code of the caller's (schedule, augmentation, functions of a method
            or attack, ``on_epoch``) nobody but the caller knows whether it is.
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
