"""What each run is fed in a batch: the data, or what a transform such as an attack makes of it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.model_state import device_of
from repsim_fast._core.nested import tensors_in, to_device
from repsim_fast.capture import run as run_model
from repsim_fast.comparison.plan import Run
from repsim_fast.data.batches import Batch, PerModel
from repsim_fast.data.order import LABEL_NAMES


def forward(run: Run, x: Any) -> None:
    """A forward pass of a run's model on its inputs."""
    if run.forward is not None:
        run.forward(run.model, x)
    else:
        run_model(run.model, _arguments(run.model, x))


def _arguments(model: nn.Module, x: Any) -> Any:
    """Inputs by the names of a model's arguments, as far as it has them.

    Labels, texts and numbers of samples that it does not have are left out. Where it has none of
    the names, as a network of images whose batches say "image", the one input that is left is its
    first argument. Anything else is the model's own to refuse.
    """
    if not isinstance(x, Mapping) or isinstance(x, PerModel):
        return x
    try:
        parameters = inspect.signature(model.forward).parameters.values()
    except (TypeError, ValueError):
        return x
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return x
    known = {
        one.name for one in parameters if one.kind in (one.KEYWORD_ONLY, one.POSITIONAL_OR_KEYWORD)
    }
    kept = {name: value for name, value in x.items() if name in known or not _is_extra(name, value)}
    if len(kept) != 1 or kept.keys() & known:
        return kept or x
    (inner,) = kept.values()
    if isinstance(inner, Mapping):
        return _arguments(model, inner)
    return inner if isinstance(inner, (Tensor, tuple)) else (inner,)


def _is_extra(name: str, value: Any) -> bool:
    """Whether an entry of a batch is about its samples, rather than an input."""
    return name in LABEL_NAMES or all(tensor.ndim < 2 for tensor in tensors_in(value))


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
