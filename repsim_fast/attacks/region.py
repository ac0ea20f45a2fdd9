"""The set an attack may search: a ball around each image, cut with the box of valid images."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Tensor

from repsim_fast import ops
from repsim_fast._core.batch_checks import images_device
from repsim_fast._core.checks import check_choice
from repsim_fast._core.randomness import Stream
from repsim_fast.ops import Bounds, Norm, Order, Scalar
from repsim_fast.ops.directions import l2_direction, per_sample
from repsim_fast.ops.reference import pgd as reference

Outside = Literal["error", "clip", "keep"]
"""What becomes of images out of bounds."""

# Images that were normalised and back miss the box by a few float32 roundings.
_BOX_TOLERANCE = 1e-5


@dataclass(frozen=True)
class Region:
    """Ball of radius ``eps`` in ``norm`` around each of ``x`` (N, ...), cut with [low, high].

    ``x`` is float32 or float64; ``eps`` a number or (N,); ``low``, ``high`` broadcast against x.
    ``order`` is that of the two L2 projections; ``fraction`` the share of coordinates that an L1
    step moves, a number or (N,).

    ``outside`` says what becomes of images that do not lie in the bounds, as those with injected
    features: "error"; "clip", points of the ball are clipped to the bounds, also further than eps
    from an image that lies outside of them (Ortiz-Jimenez et al., 2022, clip the perturbation to
    [-x, 1 - x]); "keep", each entry may be as far outside as that of x is, within
    [min(x, low), max(x, high)], which ``low`` and ``high`` then are, of the shape of x.
    """

    x: Tensor
    norm: Norm
    eps: Scalar
    low: Scalar
    high: Scalar
    order: Order = "clip_project"
    fraction: Scalar = 0.01
    outside: Outside = "error"

    @classmethod
    def around(
        cls, x: Tensor, *, norm: str, eps: Scalar, bounds: Bounds, outside: Outside = "error"
    ) -> Region:
        """Check the arguments of an attack and build its region.

        Raises:
            ValueError: Unknown norm, negative or non-finite eps, an empty batch, images out of
                bounds or not finite.
            TypeError: ``x`` is not floating point.
        """
        known = check_norm(norm)
        images_device(x)
        if x.ndim < 2 or x.numel() == 0:
            raise ValueError(f"x must be a non-empty batch (N, ...), got shape {tuple(x.shape)}")
        # An ordinary tensor with its own memory: the caller's may be an inference tensor, and
        # half precision cannot hold x + eps.
        state = x.detach().clone().to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
            raise TypeError(f"bounds must be a pair (low, high), got {bounds!r}")
        low, high = (
            _bound(bound, state, name) for bound, name in zip(bounds, ("low", "high"), strict=True)
        )
        if bool((torch.as_tensor(low) > torch.as_tensor(high)).any()):
            raise ValueError(f"bounds must be (low, high), low first, got {bounds!r}")
        if outside == "error":
            _check_inside(state, low, high)
            state = state.clamp(min=low).clamp(max=high)
        elif not bool(state.isfinite().all()):
            raise ValueError("x must be finite, got NaN or Inf")
        region = cls(state, known, non_negative(eps, state, "eps"), low, high, outside=outside)
        region._warn_of_units()
        if outside == "keep":
            return replace(region, low=state.clamp(max=low), high=state.clamp(min=high))
        return region

    def _warn_of_units(self) -> None:
        """Warn of a radius that reaches any image from any other: most likely of other units."""
        widths = torch.as_tensor(self.high - self.low, device=self.x.device, dtype=self.x.dtype)
        order = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}[self.norm]
        across = float(torch.linalg.vector_norm(widths.expand(self.x.shape[1:]).flatten(), order))
        if (largest := float(torch.as_tensor(self.eps).max())) > across * (1 + _BOX_TOLERANCE):
            warnings.warn(
                f"eps: a radius of {largest:g} leaves no image out of reach, whose values lie in "
                f"[{_show(self.low)}, {_show(self.high)}]: eps has the units of the images, as "
                "in 8 / 255",
                stacklevel=4,
            )

    def step(self, adv: Tensor, gradient: Tensor, size: Scalar) -> Tensor:
        """One ascent step of length ``size`` in the norm, back inside the region."""
        if self.outside != "error":  # boxes of each image: the kernels have one for all
            return self.project(adv + per_sample(size, adv) * self._direction(adv, gradient))
        x, eps, bounds = self.x, self.eps, (self.low, self.high)
        if self.norm == "linf":
            return ops.pgd_linf_step(adv, gradient, x, step_size=size, eps=eps, bounds=bounds)
        if self.norm == "l2":
            return ops.pgd_l2_step(
                adv, gradient, x, step_size=size, eps=eps, bounds=bounds, order=self.order
            )
        return ops.pgd_l1_step(
            adv, gradient, x, step_size=size, eps=eps, bounds=bounds, fraction=self.fraction
        )

    def project(self, adv: Tensor) -> Tensor:
        """``adv`` brought back inside the region."""
        if self.outside != "error":
            return self._projected(adv)
        x, eps, bounds = self.x, self.eps, (self.low, self.high)
        if self.norm == "linf":
            return ops.project_linf_box(adv, x, eps=eps, bounds=bounds)
        if self.norm == "l2":
            return ops.project_l2_box(adv, x, eps=eps, bounds=bounds, order=self.order)
        return ops.project_l1_box(adv, x, eps=eps, bounds=bounds)

    def random(self, stream: Stream) -> Tensor:
        """Points drawn uniformly from the balls, clipped to the box."""
        apart = self.outside != "error"
        bounds = (-math.inf, math.inf) if apart else (self.low, self.high)
        # The noise goes by an entry's place in memory: that of the images in one layout, always.
        start = ops.random_start(
            self.x.contiguous(), norm=self.norm, eps=self.eps, bounds=bounds, seed=stream.seed()
        )
        start = start if self.x.is_contiguous() else torch.empty_like(self.x).copy_(start)
        return self.boxed(start) if apart else start

    def boxed(self, images: Tensor) -> Tensor:
        """``images`` clipped to the box."""
        return images.clamp(min=self.low).clamp(max=self.high)

    def _direction(self, adv: Tensor, gradient: Tensor) -> Tensor:
        """Steepest ascent, of length 1 in the norm."""
        gradient = reference.finite(gradient, adv)
        if self.norm == "linf":
            return gradient.sign()
        if self.norm == "l2":
            return l2_direction(gradient)
        return reference.l1_direction(adv, gradient, self.low, self.high, self.fraction)

    def _projected(self, adv: Tensor) -> Tensor:
        clipped = self.outside == "clip"  # onto the ball alone, and then into the box
        low, high = (-math.inf, math.inf) if clipped else (self.low, self.high)
        if self.norm == "linf":
            adv = reference.project_linf_box(adv, self.x, self.eps, low, high)
        elif self.norm == "l2":
            adv = reference.project_l2_box(adv, self.x, self.eps, low, high, self.order)
        else:
            adv = reference.project_l1_box(adv, self.x, self.eps, low, high)
        return self.boxed(adv)

    def gaussian(self, stream: Stream) -> Tensor:
        """The images with noise whose standard deviation is the width of the box; in no ball yet.

        Drawn uniformly from the L2 ball of radius sqrt(d + 2), whose entries tend to independent
        standard Gaussians with d. An L1 ball leaves only the tails of such noise: its projection is
        sparse, which points drawn uniformly from the ball are not.
        """
        radius = math.sqrt(self.x[0].numel() + 2)
        noise = ops.random_start(
            torch.zeros_like(self.x, memory_format=torch.contiguous_format),
            norm="l2", eps=radius, bounds=(-torch.inf, torch.inf), seed=stream.seed(),
        )  # fmt: skip
        width = torch.as_tensor(self.high - self.low, dtype=self.x.dtype, device=self.x.device)
        return self.x + noise * torch.where(width.isinf(), 1.0, width)

    def rows(self, index: Tensor) -> Region:
        """The region of some of the images."""
        return replace(
            self,
            x=self.x[index],
            eps=take(self.eps, index),
            fraction=take(self.fraction, index),
            low=take(self.low, index) if self.outside == "keep" else self.low,
            high=take(self.high, index) if self.outside == "keep" else self.high,
        )


def _check_inside(x: Tensor, low: Scalar, high: Scalar) -> None:
    slack = _BOX_TOLERANCE * (high - low)
    if not bool(((x >= low - slack) & (x <= high + slack)).all()):
        raise ValueError(
            f"x must lie in bounds [{_show(low)}, {_show(high)}], "
            f"got values in [{x.min().item():g}, {x.max().item():g}]. Of normalised images give "
            "models.normalized(model, mean, std) images in [0, 1], or say bounds=(low, high) of "
            "the normalised ones, tensors (C, 1, 1) (eps is then in their units); attacks with the "
            "option take images out of bounds with outside='clip', which pulls them back, or "
            "outside='keep'"
        )


def check_norm(norm: str) -> Norm:
    """The norm of that name.

    Raises:
        ValueError: There is none.
    """
    if norm not in ops.NORMS:
        raise ValueError(f"norm must be one of {ops.NORMS}, got {norm!r}")
    return norm


def check_outside(outside: object, *, cuda_graph: bool) -> None:
    """Raises ValueError unless images out of bounds can be treated so."""
    check_choice("outside", outside, get_args(Outside))
    if cuda_graph and outside != "error":
        raise ValueError("execution: cuda_graph needs bounds that are the same for all images")


def take(value: Scalar, index: Tensor) -> Scalar:
    """Rows of a per-sample value; a number stays one."""
    return value[index] if isinstance(value, Tensor) else value


def check_step(size: Scalar, region: Region) -> Scalar:
    """A step length that is positive wherever there is a ball to move in."""
    size = non_negative(size, region.x, "step_size")
    still = (torch.as_tensor(size) <= 0) & (torch.as_tensor(region.eps) > 0)
    if bool(still.any()):
        raise ValueError("step_size must be finite and positive, got 0")
    return size


def as_scalar(value: Scalar, name: str) -> Scalar:
    """A number as float, or a tensor as it is."""
    if isinstance(value, Tensor):
        return value
    try:
        return float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} must be a number or a tensor (N,), got {value!r}") from None


def non_negative(value: Scalar, x: Tensor, name: str) -> Scalar:
    """A checked number, or a checked tensor (N,) on the device of ``x``."""
    if isinstance(value, Tensor) and value.ndim > 0:
        if value.shape != (len(x),):
            raise ValueError(
                f"{name} must be a number or a tensor of shape ({len(x)},), "
                f"got shape {tuple(value.shape)}"
            )
        value = value.detach().to(x.device, x.dtype)
        smallest = float(value.min()) if bool(value.isfinite().all()) else math.nan
    else:
        value = smallest = float(as_scalar(value, name))
    if not math.isfinite(smallest) or smallest < 0:
        raise ValueError(f"{name} must be finite and non-negative, got {smallest}")
    return value


def _bound(bound: float | Tensor, x: Tensor, name: str) -> Scalar:
    if not isinstance(bound, Tensor):
        return float(bound)
    bound = bound.detach().to(x.device, x.dtype)
    if bound.ndim == 0:
        return float(bound)
    if bound.ndim == 1 and x.ndim > 2:
        bound = bound.view(-1, *[1] * (x.ndim - 2))
    try:
        bound.expand(x.shape[1:])
    except RuntimeError:
        raise ValueError(
            f"bounds: {name} must be a number, one value per channel, or broadcast to an image "
            f"of shape {tuple(x.shape[1:])}, got shape {tuple(bound.shape)}"
        ) from None
    return bound


def _show(bound: Scalar) -> str:
    return f"{bound:g}" if isinstance(bound, float) else "per-channel tensor"
