"""What happened in a training: one record an epoch, also as JSON lines."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch; accuracies in [0, 1], None where nothing was evaluated."""

    epoch: int
    loss: float
    train_accuracy: float
    learning_rate: float
    seconds: float
    clean_accuracy: float | None = None
    robust_accuracy: float | None = None


@dataclass
class History:
    """Epochs of a training, oldest first."""

    epochs: list[Epoch] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.epochs)

    @property
    def last(self) -> Epoch:
        """The newest epoch."""
        return self.epochs[-1]


def append_line(path: Path, epoch: Epoch) -> None:
    """Append an epoch to a JSON-lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(asdict(epoch)) + "\n")
