"""What changes while a network is trained: all that a resumed training needs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field

import torch
from torch import nn

from repsim_fast._core.memory_format import with_strides_of

from . import optimizers
from .ema import WeightAverage
from .history import Epoch, History
from .optimisation import Optimisation


@dataclass
class TrainingState:
    """Weights and what goes with them.

    The random numbers of an epoch follow from seed and epoch: no generator is part of it.

    Attributes:
        model: In training.
        optimizer: With its momentum.
        rates: Highest learning rate of each of its parameter groups.
        scaler: Of the loss, in float16.
        average: Of the weights, None without.
        history: The epochs so far.
        answered: Whether ``on_epoch`` need not be asked again about the last one.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    rates: tuple[float, ...]
    scaler: torch.amp.GradScaler
    average: WeightAverage | None
    history: History = field(default_factory=History)
    answered: bool = True

    @classmethod
    def begin(
        cls, model: nn.Module, lr: float, how: Optimisation, device: torch.device
    ) -> TrainingState:
        """The state before the first epoch."""
        optimizer = optimizers.build(model, lr, how)
        return cls(
            model,
            optimizer,
            tuple(float(group["lr"]) for group in optimizer.param_groups),
            torch.amp.GradScaler(device.type, enabled=how.autocast == torch.float16),
            None if how.ema is None else WeightAverage(model, how.ema),
        )

    @torch.no_grad()
    def lay_out(self) -> None:
        """Strides of the weights for what the optimizer keeps of them."""
        for weight, held in self.optimizer.state.items():
            for name, value in held.items():
                if isinstance(value, torch.Tensor) and value.shape == weight.shape:
                    held[name] = with_strides_of(weight, value)

    @property
    def concluded(self) -> list[Epoch]:
        """The epochs that ``on_epoch`` has answered for."""
        return self.history.epochs if self.answered else self.history.epochs[:-1]

    def averaged(self) -> contextlib.AbstractContextManager[None]:
        """The model with the averaged weights inside, where there are any."""
        if self.average is None:
            return contextlib.nullcontext()
        return self.average.applied(self.model)
