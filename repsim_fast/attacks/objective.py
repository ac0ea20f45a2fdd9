"""What an attack ascends: a loss of a model's logits as a function of the images."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch
from torch import Tensor

from repsim_fast._core.batch_checks import check_logits
from repsim_fast._core.borrow import Model, call, input_gradient

from .losses import Loss

# Power of two, so exact: lifts the gradients of deep networks out of float16's subnormal range.
# Attacks use only their direction.
_HALF_SCALE = 2.0**8


@dataclass(frozen=True)
class InputGradient:
    """Value and input gradient of sign * loss(model(images), y), within ``borrow``.

    Attributes:
        model: The borrowed model.
        loss: (logits, y) -> (N,), larger is worse for the model.
        targeted: y are targets: the loss is descended instead.
        autocast: Dtype of the model's forward pass; None leaves the caller's autocast state.
    """

    model: Model
    loss: Loss
    targeted: bool = False
    autocast: torch.dtype | None = None

    def logits(self, images: Tensor) -> Tensor:
        """The model's answer (N, n_classes), float32 or float64."""
        context: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
        if self.autocast is not None:
            context = torch.autocast(images.device.type, self.autocast)
        with context:
            return call(self.model, images)

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
        """Logits (N, n_classes), value (N,) and gradient of each value to its image (N, ...).

        ``check`` compares labels with the model's classes and looks for NaN, once an attack.
        """
        images = images.detach().requires_grad_()
        logits = self.logits(images)
        if check:
            check_logits(logits, y)
        value = self.value(logits, y)
        scaled = value * _HALF_SCALE if self.autocast == torch.float16 else value
        gradient = input_gradient(scaled, images)
        return logits.detach(), value.detach(), gradient
