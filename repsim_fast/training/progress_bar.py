"""What is shown while a network is trained."""

from __future__ import annotations

from types import TracebackType

from torch import Tensor
from tqdm import tqdm

from .history import Epoch

# Batches between two figures: reading one waits for the device.
_EVERY = 20


class ProgressBar:
    """A bar over all batches of all epochs.

    Args:
        name: Of the method.
        epochs: Of the whole training.
        done: Epochs that were trained before.
        batches: In an epoch.
        shown: False for no bar.
    """

    def __init__(self, name: str, epochs: int, done: int, batches: int, *, shown: bool) -> None:
        self._bar = tqdm(
            total=epochs * batches,
            initial=done * batches,
            desc=f"train ({name})",
            unit="batch",
            disable=not shown,
        )
        self._batch = 0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.close()

    def advance(self, sums: Tensor) -> None:
        """One batch more; the epoch's sums of losses, correct predictions and predictions."""
        self._bar.update()
        self._batch += 1
        if self._batch % _EVERY == 0 and not self._bar.disable:
            total, right, count = sums.tolist()
            self._bar.set_postfix(loss=f"{total / count:.3f}", train=f"{right / count:.3f}")

    def conclude(self, record: Epoch) -> None:
        """The figures of an epoch."""
        self._batch = 0
        figures = {
            "loss": record.loss,
            "train": record.train_accuracy,
            "clean": record.clean_accuracy,
            "robust": record.robust_accuracy,
        }
        self._bar.set_postfix(
            {name: f"{value:.3f}" for name, value in figures.items() if value is not None}
        )
