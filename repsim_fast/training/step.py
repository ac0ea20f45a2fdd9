"""One optimizer step of any method."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.processes import Processes
from repsim_fast.analysis.selectivity import SelectivityRegulariser

from .awp import perturbed_weights
from .ema import WeightAverage
from .methods import Batch, Method


@dataclass
class Step:
    """One optimizer step, and all it needs."""

    model: nn.Module
    method: Method
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    regularisers: tuple[SelectivityRegulariser, ...]
    awp: float
    device: torch.device
    autocast: torch.dtype | None
    average: WeightAverage | None

    def __call__(self, batch: Batch, weight: float, group: Processes) -> tuple[Tensor, Tensor]:
        """Perturb, descend; gives the loss and the logits it was computed from."""
        model = self.model
        with self._precision():
            perturbed = self.method.perturb(model, batch)
        worst_weights = (
            perturbed_weights(model, lambda: self._loss(batch, perturbed)[0], self.awp)
            if self.awp
            else contextlib.nullcontext()
        )
        with worst_weights:
            loss, logits = self._loss(batch, perturbed)
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.method.after_backward()
        group.average_gradients(model, weight)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if self.average is not None:
            self.average.update(model)
        return loss.detach(), logits.detach()

    def _loss(self, batch: Batch, perturbed: Tensor) -> tuple[Tensor, Tensor]:
        with self._precision(), contextlib.ExitStack() as stack:
            penalties = [
                stack.enter_context(regulariser.observe(self.model))
                for regulariser in self.regularisers
            ]
            loss, logits = self.method.loss(self.model, batch, perturbed)
            for penalty in penalties:
                loss = loss + penalty(batch.y)
        return loss, logits

    def _precision(self) -> contextlib.AbstractContextManager[Any]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.autocast)
