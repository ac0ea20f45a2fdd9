"""Projected gradient descent (Madry et al., 2018)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from . import losses
from ._borrow import Model, ModelMode, borrow, call, input_gradient
from ._checks import check_labels, check_logits
from ._randomness import Stream
from ._worst import Worst
from .losses import Loss
from .region import Bounds, Region, non_negative, take
from .steps import Scalar

# Step that covers the ball 2.5 times, so that the far side of a random start is in reach
# (Madry et al., 2018, section 5).
_RELATIVE_STEP = 2.5


class PGD:
    """Maximise a loss inside a ball around each image: a callable (model, x, y) -> x_adv.

    x_{t+1} = P(x_t + step_size * d_t), where d_t is the steepest ascent direction of the loss in
    the norm and P the projection on ball and box. The loss is summed over the batch, so a sample's
    result does not depend on its neighbours; a sample with a NaN gradient stays where it is.
    The model comes back as it was, and gradients of weights are never computed.

    Args:
        eps: Radius in units of the images; a number or a tensor (N,). 0 gives back x.
        norm: "linf".
        step_size: Length of a step, a number or (N,); default 2.5 * eps / steps.
        steps: Number of steps; each costs one forward and one backward pass.
        random_start: Begin at a point uniform in the ball instead of at x.
        restarts: Independent runs. Of several, every sample keeps a run that fools the model, and
            among equals the one with the largest loss; a NaN output counts as fooled.
        select: "last" returns the last iterate, "best" the iterate (the last one included) chosen
            by the same rule as restarts. "best", like restarts > 1, costs one more forward pass.
        early_stop: A sample that fools the model is left alone and leaves the batch, which makes
            evaluation of weak models cheap. Implies one more forward pass.
        bounds: Lowest and highest pixel value, numbers or tensors, for example one per channel.
        targeted: ``y`` are classes to reach rather than to leave.
        loss: "ce" (saturation-free cross-entropy), "margin", or a callable (logits, y) -> (N,).
        model_mode: "eval" (default), "train" (batch statistics; running ones are restored) or
            "keep" (as handed in).
        seed: Int or ``torch.Generator`` for a reproducible stream that advances with every call.

    Returns (on call):
        Adversarial images, shape of x, float32 (float64 for float64 images): half precision could
        not hold the radius. Images are cast to the model's dtype for its forward pass.

    Raises (on call):
        ValueError: Images out of bounds, labels out of range, eps or step_size not positive, an
            empty batch, a model that returns no logits or NaN, or is not differentiable.
        TypeError: Images that are not floating point, labels that are not integers.

    Example:
        >>> attack = PGD(8 / 255, step_size=2 / 255, steps=10, seed=0)
        >>> x_adv = attack(model, x, y)  # doctest: +SKIP
    """

    def __init__(
        self,
        eps: Scalar,
        *,
        norm: str = "linf",
        step_size: Scalar | None = None,
        steps: int = 10,
        random_start: bool = True,
        restarts: int = 1,
        select: Literal["last", "best"] = "last",
        early_stop: bool = False,
        bounds: Bounds = (0.0, 1.0),
        targeted: bool = False,
        loss: str | Loss = "ce",
        model_mode: ModelMode = "eval",
        seed: int | torch.Generator | None = None,
    ) -> None:
        if steps < 1 or restarts < 1:
            raise ValueError(f"steps and restarts must be at least 1, got {steps} and {restarts}")
        if select not in ("last", "best"):
            raise ValueError(f"select must be 'last' or 'best', got {select!r}")
        if early_stop and model_mode == "train":
            raise ValueError(
                "early_stop shrinks the batch, which changes batch statistics: "
                "it needs model_mode 'eval'"
            )
        if restarts > 1 and not random_start:
            raise ValueError("restarts need random_start: without it every run is the same")
        self.eps = eps
        self.norm = norm
        self.step_size = step_size
        self.steps = steps
        self.random_start = random_start
        self.restarts = restarts
        self.select = select
        self.early_stop = early_stop
        self.bounds = bounds
        self.targeted = targeted
        self.loss = losses.get(loss)
        self.model_mode: ModelMode = model_mode
        self._stream = Stream(seed)

    def __repr__(self) -> str:
        return (
            f"PGD(eps={self.eps}, norm={self.norm!r}, steps={self.steps}, restarts={self.restarts})"
        )

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` (N, ...) with labels ``y`` (N,)."""
        seed = self._stream.seed()
        with borrow(model, mode=self.model_mode, device=x.device, seed=seed):
            region = Region.around(x, norm=self.norm, eps=self.eps, bounds=self.bounds)
            size = (
                region.eps * (_RELATIVE_STEP / self.steps)
                if self.step_size is None
                else non_negative(self.step_size, region.x, "step_size", positive=True)
            )
            labels = check_labels(y, x)
            best = Worst(region.x, targeted=self.targeted)
            tracked = self.select == "best" or self.restarts > 1 or self.early_stop
            for restart in range(self.restarts):
                adv = self._run(model, region, labels, size, best, first=restart == 0)
                if not tracked:
                    return adv
            return best.images

    def _run(
        self, model: Model, region: Region, y: Tensor, size: Scalar, best: Worst, *, first: bool
    ) -> Tensor:
        """One restart; records in ``best`` the iterates that count."""
        rows = torch.arange(len(y), device=y.device)
        if self.early_stop and not first:
            rows = rows[~best.fooled]
            region, y, size = region.rows(rows), y[rows], take(size, rows)
        generator = self._stream.on(region.x.device)
        adv = region.random(generator) if self.random_start else region.x
        sign = -1.0 if self.targeted else 1.0
        for step in range(self.steps):
            if not len(rows):
                return adv
            point = adv.detach().requires_grad_()
            logits = call(model, point)
            if first and step == 0:
                check_logits(logits, y)
            value = sign * self.loss(logits, y)
            gradient = input_gradient(value, point)
            with torch.no_grad():
                if self.early_stop or self.select == "best":
                    best.offer(rows, adv, logits, y, value)
                if self.early_stop:
                    keep = ~best.fooled[rows]
                    if not bool(keep.all()):
                        rows, y, adv, gradient = rows[keep], y[keep], adv[keep], gradient[keep]
                        region, size = region.rows(keep), take(size, keep)
                adv = region.step(adv, gradient, size)
        if len(rows) and (self.early_stop or self.select == "best" or self.restarts > 1):
            with torch.no_grad():
                logits = call(model, adv)
                best.offer(rows, adv, logits, y, sign * self.loss(logits, y))
        return adv
