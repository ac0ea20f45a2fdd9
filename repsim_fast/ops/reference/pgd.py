"""Plain-torch versions of attack steps and random starts: readable definitions, in the dtype of x.

The tests' oracle in float64, and the steps of devices that have no kernels. Arguments as in `ops`,
except that low and high are ready to broadcast and a negative step_size descends the loss.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from repsim_fast.ops.directions import Scalar, l2_direction, norms, per_sample


def finite(grad: Tensor, like: Tensor) -> Tensor:
    """The gradient in the dtype of ``like``, NaN as 0, infinities as the largest number.

    A float64 gradient is scaled to the range of float32 first.
    """
    grad = grad.nan_to_num(nan=0.0)
    if grad.dtype == torch.float64 and like.dtype == torch.float32:
        largest = norms(grad, torch.inf)
        narrow = torch.where(largest > 0, grad / largest, 0.0).float()
        tiny = torch.finfo(torch.float32).smallest_normal * grad.sign().float()
        return torch.where((narrow == 0) & (grad != 0), tiny, narrow)
    return grad.to(like.dtype)


def clip(x_adv: Tensor, low: Scalar, high: Scalar) -> Tensor:
    """Into the box."""
    return x_adv.clamp(min=low).clamp(max=high)


# ---- Linf


def project_linf_box(x_adv: Tensor, x: Tensor, eps: Scalar, low: Scalar, high: Scalar) -> Tensor:
    """Twin of `ops.project_linf_box`."""
    eps = per_sample(eps, x)
    return clip(x_adv.clamp(x - eps, x + eps), low, high)


def pgd_linf_step(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    step_size: Scalar,
    eps: Scalar,
    low: Scalar,
    high: Scalar,
) -> Tensor:
    """Twin of `ops.pgd_linf_step`."""
    moved = x_adv + per_sample(step_size, x) * grad.sign().to(x.dtype)
    return project_linf_box(moved, x, eps, low, high)


# ---- L2


def project_l2_box(
    x_adv: Tensor, x: Tensor, eps: Scalar, low: Scalar, high: Scalar, order: str = "clip_project"
) -> Tensor:
    """Twin of `ops.project_l2_box`."""
    if order == "clip_project":
        x_adv = clip(x_adv, low, high)
    delta = x_adv - x
    length, eps = norms(delta, 2), per_sample(eps, x)
    # Samples inside keep their bits: only longer ones are scaled.
    x_adv = torch.where(length > eps, x + delta * (eps / length), x_adv)
    return clip(x_adv, low, high)  # in either order: rounding may leave the box by a bit


def pgd_l2_step(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    step_size: Scalar,
    eps: Scalar,
    low: Scalar,
    high: Scalar,
    order: str = "clip_project",
) -> Tensor:
    """Twin of `ops.pgd_l2_step`."""
    moved = x_adv + per_sample(step_size, x) * l2_direction(finite(grad, x))
    return project_l2_box(moved, x, eps, low, high, order)


# ---- L1

_HALVINGS = 64  # leave nothing of a bracket in float64


def l1_direction(
    x_adv: Tensor, grad: Tensor, low: Scalar, high: Scalar, fraction: Scalar
) -> Tensor:
    """Sparse direction of L1 norm 1: the largest gradients among the entries that can move."""
    stuck = ((grad > 0) & (x_adv >= high)) | ((grad < 0) & (x_adv <= low))
    size = grad.masked_fill(stuck, 0.0).abs().flatten(1)
    d = size.shape[1]
    wanted = torch.as_tensor(fraction, dtype=size.dtype, device=size.device) * d
    count = wanted.long().clamp(1, d).expand(len(size)).unsqueeze(1)
    least = size.sort(1, descending=True).values.gather(1, count - 1)
    chosen = ((size >= least) & (size > 0)).view_as(grad)
    direction = torch.where(chosen, grad.sign(), 0.0)
    return direction / norms(direction, 1).clamp(min=1.0)


def project_l1_box(x_adv: Tensor, x: Tensor, eps: Scalar, low: Scalar, high: Scalar) -> Tensor:
    """Twin of `ops.project_l1_box`: the threshold by bisection, in float64 where there is one."""
    wide = torch.float32 if x.device.type == "mps" else torch.float64
    delta = (x_adv - x).to(wide)
    room = torch.where(delta >= 0, high - x, x - low).clamp(min=0.0).to(wide)
    length, radius = delta.abs(), per_sample(eps, delta)

    def shrunk(threshold: Tensor) -> Tensor:
        return torch.minimum((length - threshold).clamp(min=0.0), room)

    upper = norms(length, torch.inf)
    lower = torch.zeros_like(upper)
    inside = norms(shrunk(lower), 1) <= radius
    for _ in range(_HALVINGS):
        middle = (lower + upper) / 2
        outside = norms(shrunk(middle), 1) > radius
        lower, upper = torch.where(outside, middle, lower), torch.where(outside, upper, middle)
    change = shrunk(torch.where(inside, 0.0, upper))
    projected = (x + delta.sign() * change).to(x.dtype)
    # Entries that do not change keep their bits.
    return clip(torch.where(change == length, x_adv, projected), low, high)


def pgd_l1_step(
    x_adv: Tensor,
    grad: Tensor,
    x: Tensor,
    step_size: Scalar,
    eps: Scalar,
    low: Scalar,
    high: Scalar,
    fraction: Scalar = 0.01,
) -> Tensor:
    """Twin of `ops.pgd_l1_step`."""
    size = torch.as_tensor(per_sample(step_size, x), dtype=x.dtype, device=x.device)
    uphill = finite(torch.where(size < 0, -grad, grad), x)
    moved = x_adv + size.abs() * l1_direction(x_adv, uphill, low, high, fraction)
    return project_l1_box(moved, x, eps, low, high)


# ---- random starts

_ROUNDS = 10
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_MASK = 0xFFFFFFFF
_ROW_GROUP = 0xFFFFFFFF  # group of a row's own words
_LANES = 32


def philox(counter: tuple[Tensor, ...], seed: int) -> tuple[Tensor, ...]:
    """Philox4x32-10 (Salmon et al., 2011) of four words in int64 tensors: four words."""
    c0, c1, c2, c3 = counter
    key0, key1 = seed & _MASK, seed >> 32 & _MASK
    for _ in range(_ROUNDS):
        # The products wrap around in int64; their 64 bits are right.
        product0, product1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> 32 & _MASK) ^ c1 ^ key0,
            product1 & _MASK,
            (product0 >> 32 & _MASK) ^ c3 ^ key1,
            product0 & _MASK,
        )
        key0, key1 = key0 + _WEYL[0] & _MASK, key1 + _WEYL[1] & _MASK
    return c0, c1, c2, c3


def random_words(n: int, groups: Tensor, seed: int, offset: int) -> tuple[Tensor, ...]:
    """The four words (n, groups) of each row's groups."""
    shape = (n, len(groups))
    rows = torch.arange(n).unsqueeze(1)
    counter = (groups, rows, torch.tensor(offset & _MASK), torch.tensor(offset >> 32 & _MASK))
    return philox(tuple(word.expand(shape) for word in counter), seed)


def _uniform(words: Tensor) -> Tensor:
    """(0, 1]: (word + 1/2) / 2^32 as the kernels round it to float32; float64."""
    high = ((words >> 8).float() * 2.0**-24 + 2.0**-33).double()
    return (high + (words & 0xFF).double() * 2.0**-32).float().double()


def unit_noise(n: int, d: int, norm: str, seed: int, offset: int = 0) -> Tensor:
    """The starts' noise for eps 1, (n, d) float64, entries in the order of memory."""
    blocks = -(-d // (4 * _LANES))
    words = torch.stack(random_words(n, torch.arange(blocks * _LANES), seed, offset))
    words = words.view(4, n, blocks, _LANES)
    own = random_words(n, torch.tensor([_ROW_GROUP]), seed, offset)
    if norm == "linf":
        noise = (2.0 * ((words ^ 2**31) >> 9) + 1.0) * 2.0**-23 - 1.0
    elif norm == "l2":
        radius = (-2 * _uniform(words[[0, 0, 2, 2]]).log()).sqrt()
        quadrant, rest = words[[1, 1, 3, 3]] >> 30, words[[1, 1, 3, 3]] << 2 & _MASK
        rest = rest - (rest >= 2**31) * 2**32
        angle = math.pi / 2 * (quadrant + rest.double() * 2.0**-32)
        noise = radius * torch.stack(
            (angle[0].cos(), angle[1].sin(), angle[2].cos(), angle[3].sin())
        )
    else:
        noise = -_uniform(words & ~1).log() * (1 - 2 * (words & 1))
    noise = noise.permute(1, 2, 0, 3).reshape(n, -1)[:, :d]
    if norm == "l2":
        uniform = ((own[0] << 21) + (own[1] >> 11) + 0.5) * 2.0**-53
        noise = noise / noise.norm(dim=1, keepdim=True) * uniform ** (1.0 / d)
    elif norm == "l1":
        noise = noise / (noise.abs().sum(1, keepdim=True) - _uniform(own[2]).log())
    return noise


def random_start(
    x: Tensor,
    norm: str,
    eps: Scalar,
    low: Scalar,
    high: Scalar,
    seed: int,
    offset: int = 0,
) -> Tensor:
    """Twin of `ops.random_start`."""
    with torch.device("cpu"):  # of integers of 64 bits and in float64, which not every device has
        noise = in_memory_of(x, unit_noise(len(x), x[0].numel(), norm, seed, offset))
    return clip(x + per_sample(eps, x) * noise.to(x.dtype).to(x.device), low, high)


def in_memory_of(
    x: Tensor,  # (N, ...)
    rows: Tensor,  # (N, d)
) -> Tensor:
    """Rows of entries in the order of memory that results like x have, as (N, ...)."""
    strides = torch.empty_like(x).stride()
    entries = list(range(1, x.ndim))
    if len(x) == 1 or strides[0] * len(x) == x.numel():  # else samples interleave: kernels copy
        entries.sort(key=lambda axis: -strides[axis])
    order = (0, *entries)
    stored = rows.view([x.shape[axis] for axis in order])
    return stored.permute([order.index(axis) for axis in range(x.ndim)])
