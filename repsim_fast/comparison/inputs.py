"""What each run is fed in a batch: the data, or what a transform such as an attack makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.model_state import device_of
from repsim_fast._core.nested import to_device
from repsim_fast.capture import run as run_model
from repsim_fast.comparison.plan import Run
from repsim_fast.data.batches import Batch, PerModel


def forward(run: Run, x: Any) -> None:
    """A forward pass of a run's model on its inputs."""
    if run.forward is not None:
        run.forward(run.model, x)
    else:
        run_model(run.model, x)


class BatchInputs:
    """Inputs of all runs in one batch; a transform that several runs share is called once.

    Attributes:
        batch: The batch of data.
    """

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self._transformed: dict[tuple[int, str], Any] = {}

    def of(self, run: Run) -> Any:
        """Inputs of a run, on its device: its own copy, for a model may change them in place.

        Raises:
            TypeError: A transform returned nothing that a model takes.
            ValueError: A transform did not keep the samples.
        """
        device = device_of(run.model)
        if run.transform is None:
            return to_device(self._data(run), device, copy=True)
        own = run.name if isinstance(self.batch.x, PerModel) else ""
        key = (id(run.transform), own)
        if key not in self._transformed:
            self._transformed[key] = self._transform(run, device)
        return to_device(self._transformed[key], device, copy=True)

    def _data(self, run: Run) -> Any:
        x = self.batch.x if run.forward is None else self.batch.item
        return x[run.name] if isinstance(x, PerModel) else x

    def _transform(self, run: Run, device: torch.device) -> Any:
        assert run.transform is not None
        batch = self.batch
        with torch.enable_grad():  # attacks need gradients
            # Copies: a transform may work in place, and others want the originals too.
            x, y = (to_device(part, device, copy=True) for part in (self._data(run), batch.y))
            x = run.transform(x, y)
        if run.forward is None and not isinstance(x, (Tensor, Mapping, tuple, list)):
            raise TypeError(
                f"inputs: the transform of model {run.name!r} must return what the model takes, "
                f"a tensor or a mapping or tuple of them, got {type(x).__name__}"
            )
        if not isinstance(x, Tensor):
            return x
        n = len(x) if x.ndim else None
        if n != batch.n:
            raise ValueError(
                f"inputs: the transform of model {run.name!r} must keep the {batch.n} samples "
                f"of a batch, got {n}"
            )
        return x.detach()
