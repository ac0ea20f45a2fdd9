"""What happened in a training: one record an epoch, also as JSON lines and for TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from repsim_fast._core.files import replacing


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch; accuracies in [0, 1], None where nothing was evaluated.

    Attributes:
        epoch: Counted from 0.
        loss: Mean training loss, regularisers included.
        train_accuracy: On the images trained on, perturbed as they were.
        learning_rate: At the end of the epoch.
        seconds: Training and evaluation.
        clean_accuracy: Of the images of ``Evaluation``, the first set of several.
        robust_accuracy: Of the same images under its attack, the first of several.
        fgsm_accuracy: Of the overfitting detector's training images against FGSM.
        pgd_accuracy: Of the same images against PGD-10.
        accuracies: Of each named set and attack of ``Evaluation``, by "SET", "SET/ATTACK" or
            "ATTACK"; beside the other entries in logs.
        figures: What ``on_epoch`` gave, by name; beside the other entries in logs.
    """

    epoch: int
    loss: float
    train_accuracy: float
    learning_rate: float
    seconds: float
    clean_accuracy: float | None = None
    robust_accuracy: float | None = None
    fgsm_accuracy: float | None = None
    pgd_accuracy: float | None = None
    accuracies: Mapping[str, float] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)

    def entries(self) -> dict[str, Any]:
        """All of it by name, ``accuracies`` and ``figures`` beside the others."""
        own = asdict(self)
        accuracies, figures = own.pop("accuracies"), own.pop("figures")
        return {**own, **accuracies, **figures}

    def score(self, name: str | None = None) -> float | None:
        """What the best checkpoint is chosen by: an accuracy by name, else the robust one, else
        the clean one; None where it was not evaluated."""
        if name is not None:
            return self.accuracies.get(name)
        return self.clean_accuracy if self.robust_accuracy is None else self.robust_accuracy


@dataclass
class History:
    """Epochs of a training, oldest first.

    Attributes:
        epochs: One record an epoch.
        overfitting: What the catastrophic-overfitting detector found, None if nothing.
        stopped: Why the training ended before its last epoch, None if it did not.
        chosen_by: Name of the accuracy that the best epoch is chosen by, None for the robust (else
            clean) one.
    """

    epochs: list[Epoch] = field(default_factory=list)
    overfitting: str | None = None
    stopped: str | None = None
    chosen_by: str | None = None

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def last(self) -> Epoch:
        """The newest epoch."""
        return self.epochs[-1]

    @property
    def best(self) -> Epoch:
        """The first epoch with the highest accuracy ``chosen_by``, else the newest."""
        scores = [epoch.score(self.chosen_by) for epoch in self.epochs]
        known = [score for score in scores if score is not None]
        return self.epochs[scores.index(max(known))] if known else self.last


class Log:
    """Writes every epoch to a JSON-lines file and a TensorBoard folder, where they are asked for.

    Args:
        path: JSON-lines file, None for none.
        tensorboard: Folder of event files, None for none.
        epochs: Epochs of a training that is resumed: the file begins with them.

    Raises:
        ImportError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        path: str | Path | None,
        tensorboard: str | Path | None,
        epochs: Iterable[Epoch] = (),
    ) -> None:
        self._path = None if path is None else Path(path)
        self._writer: Any = None if tensorboard is None else _tensorboard(tensorboard)
        if self._path is not None:
            with replacing(self._path) as temporary:
                temporary.write_text("".join(_line(epoch) for epoch in epochs))

    def __enter__(self) -> Log:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is not None:
            self._writer.close()

    def write(self, epoch: Epoch) -> None:
        """Add one epoch."""
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(_line(epoch))
        if self._writer is not None:
            for name, value in epoch.entries().items():
                if name != "epoch" and value is not None:
                    self._writer.add_scalar(name, value, epoch.epoch)
            self._writer.flush()


def _line(epoch: Epoch) -> str:
    return json.dumps(epoch.entries()) + "\n"


def _tensorboard(folder: str | Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        raise ImportError("tensorboard logs need: pip install tensorboard") from None
    return SummaryWriter(log_dir=str(folder))
