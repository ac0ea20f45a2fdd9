"""Random starts: see `ops`, which exports the functions."""

from __future__ import annotations

import torch
from torch import Tensor

from repsim_fast._core.checks import check_choice
from repsim_fast.ops.directions import Scalar
from repsim_fast.ops.pgd.arguments import (
    NORMS,
    UNIT_BOX,
    Bounds,
    Norm,
    changed,
    check_images,
    check_like,
    region_arguments,
)
from repsim_fast.ops.pgd.registration import register_start
from repsim_fast.ops.reference import pgd as reference

_ops = torch.ops.repsim_fast


def random_start(
    x: Tensor,  # (N, ...)
    *,
    norm: Norm,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    seed: int,
    offset: int = 0,
) -> Tensor:
    """Points uniform in the balls around x, clipped to the box.

    The noise is a function of seed, offset, the sample's place in the batch and the entry's place
    in memory alone (Philox4x32-10), the same on every device: no generator is involved, no state
    changes. Draws with different offsets are independent.

    Args:
        x: Clean images (N, ...), float32 or float64.
        norm: "linf": every entry uniform in (-eps, eps). "l2": a Gaussian direction at the radius
            ``eps * U^(1/d)``. "l1": spacings of sorted uniforms with random signs.
        eps: Radius, a number or (N,).
        bounds: Lowest and highest pixel value: numbers, (C,), or tensors that broadcast to an
            image.
        seed: Any 64-bit integer.
        offset: Which draw from this seed, any 64-bit integer.

    Returns:
        A new tensor like x.

    Raises:
        TypeError, ValueError, RuntimeError: As in `pgd_linf_step`; ``norm`` unknown.

    Example:
        >>> import torch
        >>> from repsim_fast.ops import random_start
        >>> x = torch.full((8, 3, 4, 4), 0.5)
        >>> start = random_start(x, norm="l2", eps=0.25, seed=0)
        >>> bool(((start - x).flatten(1).norm(dim=1) <= 0.25).all())
        True

    References:
        Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011.
    """
    check_images(x)
    check_choice("norm", norm, NORMS)
    out: Tensor = _ops.random_start(x, norm, *region_arguments(x, eps, bounds), seed, offset)
    return out


def random_start_(
    x_adv: Tensor,  # (N, ...)
    x: Tensor,  # (N, ...)
    *,
    norm: Norm,
    eps: Scalar,
    bounds: Bounds = UNIT_BOX,
    seed: int,
    offset: int = 0,
) -> Tensor:
    """`random_start` into x_adv, whatever that held; returns it. x_adv may be x itself."""
    check_images(x)
    check_like("x_adv", x_adv, x, (x.dtype,))
    check_choice("norm", norm, NORMS)
    _ops.random_start_(x_adv, x, norm, *region_arguments(x, eps, bounds), seed, offset)
    return changed(x_adv)


register_start("random_start", reference.random_start)
