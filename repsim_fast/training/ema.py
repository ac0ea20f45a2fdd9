"""Exponential moving average of the weights."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from repsim_fast._core.model_state import unwrap


class WeightAverage:
    """Running mean of a model's weights, and of the statistics of its norms.

    Other buffers are copied: a mean of the vectors that a spectral norm iterates has another
    length than theirs. 16-bit weights are averaged in float32: bfloat16 rounds steps of less than
    1/512 away.

    The first updates weigh more, min(decay, (1 + t) / (10 + t)), so that the random beginning is
    forgotten soon.

    Args:
        model: Its state is the first value.
        decay: Of the old mean in each update, in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"ema must lie in (0, 1), got {decay}")
        self.decay = decay
        self.updates = 0
        self._with_means = _with_means(unwrap(model))
        self.state: dict[str, Tensor] = {
            name: value.detach().to(_mean_dtype(value), copy=True)
            for name, value in unwrap(model).state_dict().items()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the model's present state."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        for name, value in unwrap(model).state_dict().items():
            if name in self._with_means and (value.is_floating_point() or value.is_complex()):
                mean = self.state[name]
                mean.lerp_(value.to(mean.dtype), 1.0 - decay)
            else:
                self.state[name].copy_(value)

    def load_into(self, model: nn.Module) -> None:
        """Make the mean the model's own weights."""
        unwrap(model).load_state_dict(self.state)

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """The model with the mean weights; its own, bit for bit, afterwards."""
        own = {name: value.detach().clone() for name, value in unwrap(model).state_dict().items()}
        self.load_into(model)
        try:
            yield
        finally:
            unwrap(model).load_state_dict(own)


def _with_means(model: nn.Module) -> set[str]:
    """Names of the weights and of the statistics of norms."""
    found = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    for name, module in model.named_modules(remove_duplicate=False):
        if isinstance(module, nn.modules.batchnorm._NormBase):
            inside = f"{name}." if name else ""
            found |= {f"{inside}running_mean", f"{inside}running_var"}
    return found


def _mean_dtype(value: Tensor) -> torch.dtype:
    if not (value.is_floating_point() or value.is_complex()):
        return value.dtype
    return torch.promote_types(value.dtype, torch.float32)
