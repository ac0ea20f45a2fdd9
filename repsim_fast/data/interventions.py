"""Interventions on labelled images: features injected, removed, alone or of another class."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor

from repsim_fast._core.checks import check_choice
from repsim_fast._core.randomness import seeded

from .labelled import labelled
from .labels import classes_of
from .samples import Samples, placed

# (row, column) frequencies of Ortiz-Jimenez et al., in their order.
_FIRST = ((0, 1), (1, 0), (1, 1), (2, 1), (1, 2))


def dct_carriers(n_classes: int, size: tuple[int, int], channels: int = 3) -> Tensor:
    """One pattern of signs a class: signs of the DCT-II's functions of low frequency.

    With k = ceil(n_classes / 2) patterns p, v(c) = p_c for c < k and -p_(c-k) for the others. The
    frequencies (row, column) of the first five are (0,1), (1,0), (1,1), (2,1), (1,2), so that ten
    classes of 32 x 32 images have the published carriers. More follow by the sum of their
    frequencies; signs of functions of frequency 3 and more correlate, and their place is taken by
    Walsh functions, as many changes of sign along an axis and orthogonal. Patterns are those of a
    grid of blocks, as few as will do; pixels at the border that fill no block have no feature.

    Args:
        n_classes: At least 2.
        size: Height and width.
        channels: All have the same pattern.

    Returns:
        (n_classes, channels, H, W) float32 of +1 and -1, 0 in the border. Patterns are orthogonal,
        the rank is k.

    Raises:
        ValueError: Fewer than two classes, no channel, or more classes than the size has patterns.

    Example:
        >>> v = dct_carriers(10, (32, 32))
        >>> v.shape, int(torch.linalg.matrix_rank(v.flatten(1))), bool((v[0] == -v[5]).all())
        (torch.Size([10, 3, 32, 32]), 5, True)

    References:
        Ortiz-Jimenez et al., "Catastrophic overfitting can be induced with discriminative
        non-robust features", 2023.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes must be at least 2, got {n_classes}")
    if channels < 1:
        raise ValueError(f"channels must be at least 1, got {channels}")
    k = math.ceil(n_classes / 2)
    blocks = 2
    while blocks**2 - 1 < k:
        blocks *= 2
    if min(size) < blocks:
        raise ValueError(
            f"n_classes: {n_classes} classes need images of {blocks} x {blocks} at least, got "
            f"{size[0]} x {size[1]}"
        )
    rows, columns = (_axis(blocks, side) for side in size)
    patterns = torch.stack([torch.outer(rows[u], columns[v]) for u, v in _frequencies(blocks)[:k]])
    both = torch.cat((patterns, -patterns))[:n_classes]
    return both[:, None].repeat(1, channels, 1, 1)


def inject(
    data: Any, beta: float, carriers: Tensor, *, classes: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x + beta v(y): images with a feature of their class, which no clipping takes away.

    Args:
        data: ``ImageData``, or a pair of tensors (images, labels), in memory.
        beta: Amplitude in image units, in [0, 1), as in 8 / 255.
        carriers: (n_classes, C, H, W), as of ``dct_carriers``.
        classes: (N,) whose carriers to add, where it is not the labels: ``other_classes`` makes a
            set in which feature and image do not match.

    Returns:
        Images (N, C, H, W), float32 (float64 for float64 images), within [-beta, 1 + beta], and
        the labels as they are. Attacks take such images with ``outside="clip"`` or "keep".

    Raises:
        ValueError: Another beta, carriers that are not of the images' shape, labels without a
            carrier.
        TypeError: Data that are not in memory.

    Example:
        >>> from repsim_fast import data
        >>> digits = data.load("digits", "train")
        >>> v = dct_carriers(10, (8, 8), channels=1)
        >>> x, y = inject(digits, 8 / 255, v)
        >>> print(f"{(x - digits.tensors()[0]).abs().max() * 255:.3f}")
        8.000
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must lie in [0, 1), in image units as 8 / 255, got {beta}")
    images, labels = _in_memory(data)
    _check_shape(carriers, images)
    carried = classes_of(labels) if classes is None else classes
    if carried.shape != labels.shape[:1]:
        raise ValueError(
            f"classes must be one for each of {len(labels)} images, got {tuple(carried.shape)}"
        )
    _check_classes("classes" if classes is not None else "labels", carried, len(carriers))
    return torch.add(images, carriers.to(images)[carried.to(images.device)], alpha=beta), labels


def other_classes(labels: Tensor, n_classes: int, *, seed: int = 0) -> Tensor:
    """A class for each image, at random among those that are not its own.

    Args:
        labels: (N,), or soft (N, n_classes).
        n_classes: At least 2.
        seed: Of the choice.

    Returns:
        (N,), of the labels' device.

    Raises:
        ValueError: Fewer than two classes, or labels that are none of them.
    """
    if n_classes < 2:
        raise ValueError(f"n_classes must be at least 2, got {n_classes}")
    own = classes_of(labels).long()
    _check_classes("labels", own, n_classes)
    generator = seeded(seed)
    away = torch.randint(1, n_classes, own.shape, generator=generator)
    return (own + away.to(own.device)) % n_classes


def carriers_alone(
    beta: float, carriers: Tensor, *, background: float = 0.0
) -> tuple[Tensor, Tensor]:
    """The features without images: background + beta v(c), one for each class, and the classes.

    Args:
        beta: Amplitude, in [0, 1).
        carriers: (n_classes, C, H, W).
        background: Of all pixels; published are black ones.

    Raises:
        ValueError: Another beta, or carriers that are no images.
    """
    blank = torch.full_like(carriers, background)
    return inject((blank, torch.arange(len(carriers))), beta, carriers)


def complement(data: Any, carriers: Tensor) -> tuple[Tensor, Tensor]:
    """Images without what they have of the carriers: their projection on what is orthogonal to all.

    The published code takes away as many directions as there are classes, the carriers' five and
    five that happen to come beside them; here it is the carriers' span, no more.

    Args:
        data: As of ``inject``.
        carriers: (n_classes, C, H, W), of any rank.

    Returns:
        Images, not clipped, and the labels.

    Raises:
        ValueError: Carriers that are not of the images' shape.
        TypeError: Data that are not in memory.
    """
    images, labels = _in_memory(data)
    _check_shape(carriers, images)
    flat = carriers.flatten(1).double()
    _, values, directions = torch.linalg.svd(flat, full_matrices=False)
    # As of numpy's and torch's matrix_rank.
    least = values[0] * max(flat.shape) * torch.finfo(torch.float64).eps
    basis = directions[values > least].to(images)  # (rank, d)
    pixels = images.flatten(1)
    return (pixels - (pixels @ basis.T) @ basis).view_as(images), labels


Axes = Literal["both", "rows"]


def low_pass(images: Tensor, bandwidth: int, *, axes: Axes = "both") -> Tensor:
    """Images of their DCT-II coefficients of the lowest frequencies, each channel by itself.

    The mean of a channel is kept: filtering before or after a normalisation by mean and standard
    deviation is the same.

    Args:
        images: (..., H, W), floating point.
        bandwidth: Frequencies kept, from 0, at least 1.
        axes: "both"; "rows": only frequencies from row to row are cut, columns keep all of theirs,
            as in the published code, whose mask runs over the wrong axes.

    Returns:
        Of the same shape and dtype, not clipped; differentiable.

    Raises:
        ValueError: Another bandwidth or axes.
        TypeError: Images that are not floating point.
    """
    check_choice("axes", axes, ("both", "rows"))
    if bandwidth < 1:
        raise ValueError(f"bandwidth must be at least 1, got {bandwidth}")
    if not images.is_floating_point():
        raise TypeError(f"images must be floating point, got {images.dtype}")
    filtered = _filter(images.shape[-2], bandwidth).to(images) @ images
    if axes == "both":
        filtered = filtered @ _filter(images.shape[-1], bandwidth).to(images)
    return filtered


def _filter(side: int, bandwidth: int) -> Tensor:
    """Projection (side, side) on the lowest frequencies; symmetric."""
    at = (torch.arange(side, dtype=torch.float64) + 0.5) * math.pi / side
    waves = torch.cos(torch.arange(min(bandwidth, side))[:, None] * at)
    waves = waves / torch.linalg.vector_norm(waves, dim=1, keepdim=True)
    projection: Tensor = waves.T @ waves
    return projection


def _frequencies(blocks: int) -> list[tuple[int, int]]:
    """Pairs of frequencies below ``blocks``, without that of a constant."""
    every = [(u, v) for u in range(blocks) for v in range(blocks)][1:]
    every.sort(key=lambda pair: (pair not in _FIRST, sum(pair), max(pair)))
    first = [pair for pair in _FIRST if max(pair) < blocks]
    return first + every[len(first) :]


def _axis(blocks: int, side: int) -> Tensor:
    """Walsh functions by their changes of sign, (blocks, side); 0 where blocks do not reach."""
    signs = torch.ones(1, 1)
    while len(signs) < blocks:
        signs = torch.cat((torch.cat((signs, signs), 1), torch.cat((signs, -signs), 1)))
    changes = (signs[:, 1:] != signs[:, :-1]).sum(1)
    pixels = signs[changes.argsort()].repeat_interleave(side // blocks, 1)
    before = (side - pixels.shape[1]) // 2
    return torch.nn.functional.pad(pixels, (before, side - pixels.shape[1] - before))


def _in_memory(data: Any) -> tuple[Tensor, Tensor]:
    held = labelled(data)
    if not isinstance(held, Samples):
        raise TypeError(
            f"data must be in memory, as ImageData or a pair of tensors, got {type(data).__name__}"
        )
    images, labels = placed(held.images, held.labels, held.images.device)
    return images.to(torch.promote_types(images.dtype, torch.float32)), labels


def _check_classes(name: str, classes: Tensor, n: int) -> None:
    lowest, highest = int(classes.min()), int(classes.max())
    if lowest < 0 or highest >= n:
        raise ValueError(f"{name} must lie in 0..{n - 1}, got {lowest}..{highest}")


def _check_shape(carriers: Tensor, images: Tensor) -> None:
    if carriers.ndim != 4 or carriers.shape[1:] != images.shape[1:]:
        raise ValueError(
            f"carriers must be (n_classes, {', '.join(map(str, images.shape[1:]))}), got "
            f"{tuple(carriers.shape)}"
        )
