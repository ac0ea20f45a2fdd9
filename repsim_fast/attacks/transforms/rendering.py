"""Gradient ascent on the parameters of a differentiable rendering of an image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from repsim_fast._core.batch_checks import check_labels, check_logits, images_device
from repsim_fast._core.borrow import Model, borrow, input_gradient
from repsim_fast._core.randomness import Stream

from .. import losses
from ..losses import Loss
from ..objective import InputGradient
from ..region import Region


@dataclass(frozen=True)
class Scene:
    """What an attack may change in a batch of images.

    Attributes:
        start: First parameters (N, ...).
        render: Parameters -> images (N, C, H, W), differentiable, not yet clipped.
        move: (parameters, gradient) -> parameters, one ascent step within the limits.
    """

    start: Tensor
    render: Callable[[Tensor], Tensor]
    move: Callable[[Tensor, Tensor], Tensor]


class RenderingAttack(ABC):
    """Base of the attacks whose perturbation is drawn into the image by parameters.

    A callable (model, x, y) -> x_adv for images (N, 1 or 3, H, W) in [0, 1], with the guarantees
    and errors of ``PGD``.
    """

    def __init__(
        self,
        eps: float,
        *,
        steps: int,
        step_size: float,
        loss: str | Loss = "ce",
        seed: int | torch.Generator | None = None,
    ) -> None:
        if not eps >= 0 or not step_size > 0 or steps < 1:
            raise ValueError(
                "eps must be non-negative, step_size positive and steps at least 1, "
                f"got {eps}, {step_size}, {steps}"
            )
        self.eps = eps
        self.steps = steps
        self.step_size = step_size
        self.loss = losses.get(loss)
        self._stream = Stream(seed)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(eps={self.eps:g}, steps={self.steps})"

    @abstractmethod
    def _scene(self, x: Tensor, generator: torch.Generator) -> Scene:
        """Random start and fixed random choices for the images ``x``."""

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` with labels ``y`` (N,)."""
        with borrow(model, mode="eval", device=images_device(x), seed=self._stream.seed()):
            images = check_images(x)
            labels = check_labels(y, x)
            scene = self._scene(images, self._stream.on(x.device))
            objective = InputGradient(model, self.loss)
            parameters = scene.start
            for step in range(self.steps):
                parameters.requires_grad_()
                logits = objective.logits(boxed(scene.render(parameters)))
                if step == 0:
                    check_logits(logits, labels)
                gradient = input_gradient(objective.value(logits, labels), parameters)
                with torch.no_grad():
                    parameters = scene.move(parameters, gradient).detach()
            with torch.no_grad():
                return scene.render(parameters).clamp(0.0, 1.0)


def check_images(x: Tensor) -> Tensor:
    """Images (N, 1 or 3, H, W) in [0, 1] as a fresh float32 (or float64) tensor."""
    images = Region.around(x, norm="linf", eps=0.0, bounds=(0.0, 1.0)).x
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"x must have shape (N, 1 or 3, H, W), got {tuple(x.shape)}")
    return images


def boxed(images: Tensor) -> Tensor:
    """Clip to [0, 1]; pixels exactly at 0 or 1 keep their gradient, unlike with ``clamp``."""
    inside = (images >= 0.0) & (images <= 1.0)
    return torch.where(inside, images, images.detach().clamp(0.0, 1.0))


def uniform(shape: tuple[int, ...], x: Tensor, generator: torch.Generator) -> Tensor:
    """Uniform numbers in [0, 1), dtype and device of ``x``."""
    return torch.rand(shape, dtype=x.dtype, device=x.device, generator=generator)
