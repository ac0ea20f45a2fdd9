"""A number that changes in the course of a training.

Here, where no torch is needed, since the command line reads and checks ramps before it computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Ramp:
    """A number that goes in a straight line from ``start`` to ``stop`` while a network is trained.

    Before ``begin`` it is ``start``, after ``end`` it is ``stop``. It stands for any number among
    the settings of a method given by name, and changes with every optimizer step.

    Args:
        start: First value.
        stop: Last value.
        begin: Share of the training, in [0, 1), after which it begins to change.
        end: Share of the training, in (begin, 1], after which it stays.
        whole: Round to whole numbers, for settings that are counts.

    Raises:
        ValueError: Shares out of range or order, values that are not finite.

    Example:
        >>> ramp = Ramp(0.0, 8.0, end=0.5)
        >>> [ramp.at(fraction) for fraction in (0.0, 0.25, 0.5, 0.9)]
        [0.0, 4.0, 8.0, 8.0]
    """

    start: float
    stop: float
    begin: float = 0.0
    end: float = 1.0
    whole: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.begin < self.end <= 1:
            raise ValueError(
                f"begin and end must be shares, 0 <= begin < end <= 1, got {self.begin} and "
                f"{self.end}"
            )
        for name in ("start", "stop"):
            if not math.isfinite(value := getattr(self, name)):
                raise ValueError(f"{name} must be finite, got {value}")

    def at(self, fraction: float) -> float:
        """The value where so much of the training is done."""
        done = min(1.0, max(0.0, (fraction - self.begin) / (self.end - self.begin)))
        # Not start + done * (stop - start): at the end it is the last value, to the bit.
        value = (1.0 - done) * self.start + done * self.stop
        return round(value) if self.whole else value
