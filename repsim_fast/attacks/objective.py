"""What an attack ascends: a loss of a model's logits as a function of the images."""

from __future__ import annotations

import contextlib
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from repsim_fast._core.batch_checks import check_logits
from repsim_fast._core.borrow import Model, call, input_gradient, model_dtype

from .losses import Loss

# Power of two, so exact: lifts the gradients of deep networks out of float16's subnormal range.
_HALF_SCALE = 2.0**8


def lifted(value: Tensor, logits: Tensor, model: Model) -> Tensor:
    """``value`` so scaled that its gradient survives the model's dtype; its direction stays.

    Float16 may be the model's own dtype or that of an autocast around all this.
    """
    device = logits.device.type
    half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    if half or model_dtype(model, logits.dtype) == torch.float16:
        return value * _HALF_SCALE
    return value


@dataclass(frozen=True)
class InputGradient:
    """Value and input gradient of sign * loss(model(images), y), within ``borrow``.

    Gradients may be scaled (see ``lifted``): attacks use only their direction.

    Attributes:
        model: The borrowed model.
        loss: (logits, y) -> (N,), larger is worse for the model.
        targeted: y are targets: the loss is descended instead.
        autocast: Dtype of the model's forward pass; None leaves the caller's autocast state.
        draws: Forward passes whose mean is taken, of a model that draws random numbers.
    """

    model: Model
    loss: Loss
    targeted: bool = False
    autocast: torch.dtype | None = None
    draws: int = 1

    def logits(self, images: Tensor) -> Tensor:
        """The model's answer (N, n_classes), float32 or float64."""
        return _mean([self._draw(images) for _ in range(self.draws)])

    def _draw(self, images: Tensor) -> Tensor:
        with self._precision(images.device):
            return call(self.model, images)

    def _precision(self, device: torch.device) -> contextlib.AbstractContextManager[object]:
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, self.autocast)

    def value(self, logits: Tensor, y: Tensor) -> Tensor:
        """The ascended value (N,)."""
        loss = self.loss(logits, y)
        if loss.shape != logits.shape[:1]:
            raise ValueError(
                f"loss must return one value for each image, shape ({len(logits)},), "
                f"got {tuple(loss.shape)}"
            )
        return -loss if self.targeted else loss

    def __call__(
        self, images: Tensor, y: Tensor, *, check: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, n_classes), value (N,) and direction of its gradient to its image (N, ...).

        ``check`` compares labels with the model's classes, looks for NaN and for a gradient other
        than 0, once an attack.
        """
        images = images.detach().requires_grad_()
        answers, gradients = [], []
        for _ in range(self.draws):
            logits = self._draw(images)
            if check:
                check_logits(logits, y)
            with self._precision(images.device):
                value = self.value(logits, y)
                scaled = lifted(value, logits, self.model)
            answers.append(logits.detach())
            gradients.append(input_gradient(scaled, images))
        logits = _mean(answers)
        value = value if self.draws == 1 else self.value(logits, y)
        gradient = _mean(gradients)
        if check and not bool(gradient.any()):
            _warn_of_no_direction(len(images))
        return logits, value.detach(), gradient


def _warn_of_no_direction(n: int) -> None:
    """Warn that no image has a gradient: what withstands the attack is not robust for that."""
    warnings.warn(
        f"model: the gradient of the loss is exactly 0 at each of {n} images: the attack has no "
        "direction to go in, and a robust accuracy found so is no limit. Look for rounding, "
        "thresholds or saturation in the model; stage 'square' of AutoAttack takes no gradients",
        stacklevel=4,
    )


def _mean(draws: list[Tensor]) -> Tensor:
    return draws[0] if len(draws) == 1 else torch.stack(draws).mean(0)
