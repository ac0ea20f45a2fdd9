"""Settings of a method that change in the course of a training."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from .methods.base import Method, TrainingBatch


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


def settings_at(options: Mapping[str, Any], fraction: float) -> dict[str, Any]:
    """``options`` with the present value of each ramp."""
    return {
        name: value.at(fraction) if isinstance(value, Ramp) else value
        for name, value in options.items()
    }


def ramped(factory: Callable[..., Method], options: Mapping[str, Any]) -> Method:
    """The method whose settings are, at each step, those of the ramps among ``options``.

    Settings that the factory derives from others, such as a step from the radius, follow.

    Raises:
        ValueError: A first or last value that the method does not take, a count that is not whole,
            a method that keeps something from step to step, or a CUDA graph.
    """
    for name, value in options.items():
        if isinstance(value, Ramp) and not value.whole and _counts(factory, name):
            raise ValueError(f"{name} is a whole number: give Ramp(..., whole=True)")
    first, last = (factory(**settings_at(options, fraction)) for fraction in (0.0, 1.0))
    if first.stateful:
        raise ValueError(f"method {first.name!r} carries its perturbation on: it takes no Ramp")
    if getattr(options.get("execution"), "cuda_graph", False):
        raise ValueError("execution: a CUDA graph holds its settings: no cuda_graph with a Ramp")

    def now(batch: TrainingBatch) -> Method:
        return factory(**settings_at(options, batch.progress.fraction))

    def perturb(model: nn.Module, batch: TrainingBatch) -> Tensor:
        return now(batch).perturb(model, batch)

    def loss(model: nn.Module, batch: TrainingBatch, perturbed: Tensor) -> tuple[Tensor, Tensor]:
        return now(batch).loss(model, batch, perturbed)

    return replace(last, perturb=perturb, loss=loss)


def _counts(factory: Callable[..., Method], name: str) -> bool:
    parameter = inspect.signature(factory).parameters.get(name)
    return parameter is not None and parameter.annotation in ("int", int)
