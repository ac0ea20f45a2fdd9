"""The caller's word after each epoch: figures for its record, or an end of the training."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass, field, fields
from typing import SupportsFloat

import torch
from torch import nn

from repsim_fast._core.processes import Processes

from .history import Epoch

OnEpoch = Callable[[nn.Module, Epoch], Mapping[str, SupportsFloat] | None]
"""(model in eval mode, record of the epoch) -> figures for the record by name, or None."""

_TAKEN = {entry.name for entry in fields(Epoch)}


class StopTraining(Exception):
    """Raised by ``on_epoch``: the epoch it was called for is the last one.

    ``train`` then returns as after the last epoch, everything saved, with the reason in
    ``History.stopped``. Resumed, it calls ``on_epoch`` for that epoch once more and goes on unless
    it is stopped again: a time limit may be another one by then, a goal that was met still is.

    Args:
        reason: Why, in a few words.
        figures: What ``on_epoch`` would have returned.
    """

    def __init__(self, reason: str, figures: Mapping[str, SupportsFloat] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.figures = figures


@dataclass(frozen=True)
class Answer:
    """What came of a call: figures, a reason to stop, an error to raise once all is saved."""

    figures: Mapping[str, float] = field(default_factory=dict)
    stop: str | None = None
    error: BaseException | None = None

    @property
    def final(self) -> bool:
        """Whether a resumed training has no need to ask again."""
        return self.stop is None and self.error is None

    def raise_error(self, epoch: int, kept: str) -> None:
        """Raise what ``on_epoch`` raised; ``kept`` says what became of the epoch."""
        if isinstance(self.error, Exception):
            raise RuntimeError(
                f"on_epoch raised {type(self.error).__name__} after epoch {epoch}: {self.error} "
                f"({kept})"
            ) from self.error
        if self.error is not None:  # KeyboardInterrupt, SystemExit: as they are
            raise self.error


def ask(
    on_epoch: OnEpoch | None,
    model: nn.Module,
    record: Epoch,
    group: Processes,
    device: torch.device,
) -> Answer:
    """Call ``on_epoch`` in the first process; all of them learn whether the training goes on."""
    if on_epoch is None:
        return Answer()
    answer = _call(on_epoch, model, record) if group.first else Answer()
    ends = torch.tensor([answer.stop is not None, answer.error is not None], dtype=torch.float64)
    stop, failed = group.sum(ends.to(device)).tolist()
    if group.first:
        return answer
    return Answer(
        stop="on_epoch stopped it in the first process" if stop else None,
        error=RuntimeError("see the first process") if failed else None,
    )


def _call(on_epoch: OnEpoch, model: nn.Module, record: Epoch) -> Answer:
    try:
        try:
            returned, reason = on_epoch(model, record), None
        except StopTraining as stop:
            returned, reason = stop.figures, stop.reason
        return Answer(_figures(returned, _TAKEN | record.accuracies.keys()), reason)
    except BaseException as error:
        return Answer(error=error)


def _figures(returned: Mapping[str, SupportsFloat] | None, taken: Set[str]) -> dict[str, float]:
    """Figures as numbers.

    Raises:
        TypeError: No mapping of names to numbers.
        ValueError: A name that the record has already.
    """
    if returned is None:
        return {}
    if not isinstance(returned, Mapping):
        raise TypeError(
            f"on_epoch must return a mapping of figures or None, got {type(returned).__name__}"
        )
    if twice := sorted(taken & returned.keys()):
        raise ValueError(f"on_epoch: the record has a figure {twice[0]!r} already")
    return {str(name): _number(name, value) for name, value in returned.items()}


def _number(name: str, value: SupportsFloat) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"on_epoch: figure {name!r} must be a number, got {value!r}") from None
