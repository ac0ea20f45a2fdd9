"""Steps, projections and random starts of gradient attacks, in plain torch.

For devices without the compiled ones (`region` chooses). Every function keeps the samples of a
batch apart, returns a new tensor and takes, beside the images x and the iterate adv (N, ...):

eps, size: radius and step length, a number or a tensor (N,).
low, high: box that holds x, numbers or tensors that broadcast against x.

Directions are free of scale: a gradient of 1e-30 moves a sample as far as one of 1e30, only an
exactly zero one does not move it, and a NaN entry counts as zero.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Scalar = float | Tensor
Order = Literal["clip_project", "project_clip"]

# Bracketed Newton ends within 10 passes on real rows; bisection alone would need 50 for float64.
_MAX_PASSES = 60


def per_sample(value: Scalar, x: Tensor) -> Scalar:
    """Shape (N,) to (N, 1, ..., 1); a number stays one."""
    return value.view(-1, *[1] * (x.ndim - 1)) if isinstance(value, Tensor) else value


def _norm(x: Tensor, p: float) -> Tensor:
    """Norm of each sample, (N, 1, ..., 1)."""
    norm: Tensor = torch.linalg.vector_norm(x, p, dim=tuple(range(1, x.ndim)), keepdim=True)
    return norm


def _finite(gradient: Tensor) -> Tensor:
    """Without NaN and infinities, in at least float32."""
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)).nan_to_num(nan=0.0)


# --- Linf -----------------------------------------------------------------------------------------


def linf_project(adv: Tensor, x: Tensor, eps: Scalar, low: Scalar, high: Scalar) -> Tensor:
    """Euclidean projection on the Linf ball around x cut with the box, exact."""
    eps = per_sample(eps, x)
    return adv.clamp((x - eps).clamp(min=low), (x + eps).clamp(max=high))


def linf_step(
    adv: Tensor, gradient: Tensor, x: Tensor, size: Scalar, eps: Scalar, low: Scalar, high: Scalar
) -> Tensor:
    """P(adv + size * sign(gradient)); sign(NaN) is 0 in torch."""
    return linf_project(adv + per_sample(size, x) * gradient.sign(), x, eps, low, high)


def linf_random(
    x: Tensor, eps: Scalar, low: Scalar, high: Scalar, generator: torch.Generator
) -> Tensor:
    """Uniform in the ball, then clipped to the box."""
    noise = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    return linf_project(x + per_sample(eps, x) * (2.0 * noise - 1.0), x, eps, low, high)


# --- L2 -------------------------------------------------------------------------------------------


def l2_direction(gradient: Tensor) -> Tensor:
    """gradient / |gradient|_2, 0 for a zero gradient.

    Scaled by its largest entry first, so that no square over- or underflows.
    """
    gradient = _finite(gradient)
    largest = _norm(gradient, torch.inf)
    unit = torch.where(largest > 0, gradient / largest, 0.0)
    return unit / _norm(unit, 2).clamp(min=1.0)  # the norm is at least 1, or the row is zero


def l2_project(
    adv: Tensor,
    x: Tensor,
    eps: Scalar,
    low: Scalar,
    high: Scalar,
    order: Order = "clip_project",
) -> Tensor:
    """Into the L2 ball and the box, one after the other (neither order is the exact projection).

    "clip_project" uses the whole radius, where clipping last shortens the perturbation.
    """
    if order == "clip_project":
        adv = adv.clamp(min=low).clamp(max=high)
    delta = adv - x
    length = _norm(delta, 2)
    eps = per_sample(eps, x)
    # Rows inside keep their bits: only longer ones are scaled.
    adv = torch.where(length > eps, x + delta * (eps / length), adv)
    # In either order: after the ball, rounding may leave a pixel one bit outside the box.
    return adv.clamp(min=low).clamp(max=high)


def l2_step(
    adv: Tensor,
    gradient: Tensor,
    x: Tensor,
    size: Scalar,
    eps: Scalar,
    low: Scalar,
    high: Scalar,
    order: Order = "clip_project",
) -> Tensor:
    """P(adv + size * gradient / |gradient|_2)."""
    moved = adv + per_sample(size, x) * l2_direction(gradient)
    return l2_project(moved, x, eps, low, high, order)


def l2_random(
    x: Tensor, eps: Scalar, low: Scalar, high: Scalar, generator: torch.Generator
) -> Tensor:
    """Uniform in the ball, radius eps * U^(1/d), then clipped to the box."""
    noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
    radius = torch.rand(len(x), dtype=x.dtype, device=x.device, generator=generator)
    radius = radius ** (1.0 / x[0].numel())
    adv = x + per_sample(eps * radius, x) * l2_direction(noise)
    return adv.clamp(min=low).clamp(max=high)


# --- L1 -------------------------------------------------------------------------------------------


def l1_normalise(gradient: Tensor) -> Tensor:
    """gradient / |gradient|_1, dense: the scale at which momentum adds gradients up."""
    gradient = _finite(gradient)
    largest = _norm(gradient, torch.inf)
    unit = torch.where(largest > 0, gradient / largest, 0.0)
    return unit / _norm(unit, 1).clamp(min=1.0)


def l1_direction(
    adv: Tensor, gradient: Tensor, low: Scalar, high: Scalar, fraction: Scalar
) -> Tensor:
    """Sparse ascent direction of L1 norm 1 (Tramèr & Boneh, 2019).

    sign(g) on the ``fraction`` of coordinates with the largest |g| (at least one), among those the
    box lets move; ``fraction`` is a number or (N,).
    """
    gradient = _finite(gradient)
    stuck = ((gradient > 0) & (adv >= high)) | ((gradient < 0) & (adv <= low))
    size = gradient.masked_fill(stuck, 0.0).abs().flatten(1)
    d = size.shape[1]
    if isinstance(fraction, Tensor):
        count = (fraction * d).long().clamp(1, d).unsqueeze(1)
        least = size.sort(1, descending=True).values.gather(1, count - 1)
    else:
        least = size.topk(max(1, min(d, int(fraction * d)))).values[:, -1:]
    chosen = ((size >= least) & (size > 0)).view_as(gradient)
    direction = torch.where(chosen, gradient.sign(), 0.0)
    return direction / _norm(direction, 1).clamp(min=1.0)


def l1_project(adv: Tensor, x: Tensor, eps: Scalar, low: Scalar, high: Scalar) -> Tensor:
    """Euclidean projection on the L1 ball around x cut with the box, exact (Croce & Hein, 2021).

    With u = adv - x and c_i the room that the box leaves coordinate i on u_i's side, the solution
    is x + sign(u) min(max(|u| - t, 0), c): t = 0 if that lies in the ball, else the root of
    phi(t) = sum_i min(max(|u_i| - t, 0), c_i) = eps.
    """
    delta = adv - x
    length = delta.abs()
    room = torch.where(delta >= 0, high - x, x - low).clamp(min=0.0)
    root = _l1_threshold(length.flatten(1), room.flatten(1), eps)
    shrunk = torch.minimum((length - per_sample(root, x)).clamp(min=0.0), room)
    # Coordinates that do not change keep their bits.
    adv = torch.where(shrunk == length, adv, x + delta.sign() * shrunk)
    return adv.clamp(min=low).clamp(max=high)  # rounding may leave a pixel one bit outside


def _l1_threshold(length: Tensor, room: Tensor, eps: Scalar) -> Tensor:
    """The t of ``l1_project`` for each row of |u| and c, both (N, d).

    phi falls and is piecewise linear with 2d knots. Newton's method inside a bracket lands on the
    root's own piece, where it is exact, after a few O(d) passes: no knot has to be sorted.
    """
    t = length.new_zeros(len(length), 1)
    lower, upper = t, length.amax(1, keepdim=True)
    radius = (eps if isinstance(eps, Tensor) else t.new_full((len(t),), eps)).view(-1, 1)
    tolerance = torch.finfo(length.dtype).eps * radius
    for number in range(_MAX_PASSES):
        rest = length - t
        # Sums in float64: in float32 a hundred thousand terms would cost the sixth digit.
        sums = torch.minimum(rest.clamp(min=0.0), room).sum(1, keepdim=True, dtype=torch.float64)
        excess = (sums - radius).to(length.dtype)
        done = (excess.abs() <= tolerance) | ((excess < 0) & (t == 0))
        lower, upper = torch.where(excess > 0, t, lower), torch.where(excess > 0, upper, t)
        # Slope on the side of the root: the coordinates that shrink when t moves that way.
        moving = torch.where(
            excess > 0, (rest > 0) & (rest <= room), (rest >= 0) & (rest < room)
        ).sum(1, keepdim=True)
        newton = t + excess / moving
        # A step lost to rounding: one number up is the feasible neighbour; down there is none.
        done |= (newton == t) & (excess < 0)
        newton = torch.where(newton == t, torch.nextafter(t, upper), newton)
        inside = (newton > lower) & (newton < upper) & (number < _MAX_PASSES // 2)
        t = torch.where(done, t, torch.where(inside, newton, 0.5 * (lower + upper)))
        if bool((done | (upper <= torch.nextafter(lower, upper))).all()):
            break
    return torch.where(done, t, upper).squeeze(1)


def l1_step(
    adv: Tensor,
    gradient: Tensor,
    x: Tensor,
    size: Scalar,
    eps: Scalar,
    low: Scalar,
    high: Scalar,
    fraction: Scalar = 0.01,
) -> Tensor:
    """P(adv + size * sparse direction), with the exact projection."""
    direction = l1_direction(adv, gradient, low, high, fraction)
    return l1_project(adv + per_sample(size, x) * direction, x, eps, low, high)


def l1_random(
    x: Tensor, eps: Scalar, low: Scalar, high: Scalar, generator: torch.Generator
) -> Tensor:
    """Uniform in the ball, then clipped to the box.

    d of d + 1 exponential variables over their sum are the spacings of sorted uniforms: uniform on
    the simplex, hence with random signs uniform in the ball, without a sort.
    """
    shape = (len(x), x[0].numel() + 1)
    spacings = torch.empty(shape, dtype=x.dtype, device=x.device).exponential_(generator=generator)
    spacings = (spacings / spacings.sum(1, keepdim=True))[:, :-1].view(x.shape)
    sign = torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator) < 0.5
    noise = torch.where(sign, spacings, -spacings)
    return (x + per_sample(eps, x) * noise).clamp(min=low).clamp(max=high)
