"""Learning-rate schedules: factor of the peak rate at a fraction t in [0, 1) of the training."""

from __future__ import annotations

import math
from collections.abc import Callable

from repsim_fast._core.names import SCHEDULES, check_same

Schedule = Callable[[float], float]


def constant(t: float) -> float:
    """The same rate throughout."""
    return 1.0


def cosine(t: float) -> float:
    """(1 + cos(pi t)) / 2: from 1 to 0."""
    return 0.5 * (1.0 + math.cos(math.pi * t))


def cyclic(t: float, *, peak: float = 0.5) -> float:
    """One triangle, 0 to 1 at ``peak`` and back to 0: the schedule of single-step training."""
    return t / peak if t < peak else (1.0 - t) / (1.0 - peak)


def step(t: float, *, milestones: tuple[float, ...] = (0.5, 0.75), factor: float = 0.1) -> float:
    """Times ``factor`` at each milestone: epochs 100 and 150 of 200 by default."""
    return math.prod(factor for milestone in milestones if t >= milestone)


_SCHEDULES: dict[str, Schedule] = {
    "constant": constant,
    "cosine": cosine,
    "cyclic": cyclic,
    "step": step,
}
check_same(SCHEDULES, _SCHEDULES)


def available() -> list[str]:
    """Names that ``get`` knows."""
    return list(_SCHEDULES)


def get(schedule: str | Schedule) -> Schedule:
    """Schedule by name, or ``schedule`` itself when it is callable."""
    if callable(schedule):
        return schedule
    if schedule not in _SCHEDULES:
        raise ValueError(
            f"schedule must be a callable or one of {sorted(_SCHEDULES)}, got {schedule!r}"
        )
    return _SCHEDULES[schedule]
