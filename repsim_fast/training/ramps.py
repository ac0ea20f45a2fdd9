"""Settings of a method that change in the course of a training."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from repsim_fast._core.ramp import Ramp

if TYPE_CHECKING:
    from .methods.base import Method, TrainingBatch


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

    return replace(last, perturb=perturb, loss=loss, settings={**last.settings, **options})


def _counts(factory: Callable[..., Method], name: str) -> bool:
    parameter = inspect.signature(factory).parameters.get(name)
    return parameter is not None and parameter.annotation in ("int", int)
