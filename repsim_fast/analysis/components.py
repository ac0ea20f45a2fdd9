"""The first principal component of a layer: how much it holds, and whether layers share it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from .grids import Array

__all__ = ["first_component_cosines", "first_component_share", "without_first_component"]


def first_component_share(x: Tensor) -> float:
    """Share of a layer's variance in the direction of most variance, λ_1 / Σ λ_i.

    Args:
        x: (n_samples, n_features), of float32 or float64.

    Returns:
        In (0, 1]; NaN for features that do not vary. Isotropic features of n samples have about
        (1 + √(p / n))² / p.

    Raises:
        ValueError: Not two dimensions, or fewer than two samples.

    Example:
        >>> import torch
        >>> round(first_component_share(torch.outer(torch.arange(4.0), torch.ones(3))), 6)
        1.0

    References:
        Nguyen et al., "Do wide and deep networks learn the same things? Uncovering how neural
        network representations vary with width and depth", section 4.2, 2021.
    """
    values, _ = _spectrum(x)
    total = float(values.sum())
    return float(values[-1]) / total if total > 0 else float("nan")


def first_component_cosines(layers: Sequence[Tensor]) -> Array:
    """|cos| between the first principal components of layers, as coordinates of the samples.

    Layers of a block structure that rests on one dominant component share it: their cosines are
    near 1. Unrelated components of n samples have about √(2 / (π n)).

    Args:
        layers: Of each (n_samples, n_features) of the same samples.

    Returns:
        (layers, layers) in [0, 1]; NaN for layers that do not vary.

    Raises:
        ValueError: Layers of different numbers of samples, or as `first_component_share`.

    References:
        Nguyen et al., "On the origins of the block structure phenomenon in neural network
        representations", 2022.
    """
    if len({len(x) for x in layers}) > 1:
        raise ValueError(
            f"layers: expected the same samples, got {sorted({len(x) for x in layers})} of them"
        )
    # Rounding leaves a constant layer a component, of no length.
    scores = [
        v[:, -1] if float(w[-1]) > 0 else v[:, -1] * float("nan") for w, v in map(_spectrum, layers)
    ]
    together = torch.stack([s.double().cpu() for s in scores])
    cosines: Array = (together @ together.T).abs().clamp(max=1.0).numpy().astype(np.float64)
    return cosines


def without_first_component(x: Tensor) -> Tensor:
    """Centred features without their direction of most variance.

    Similarity that is left after it is removed from every layer does not rest on it.

    Args:
        x: (n_samples, n_features).

    Returns:
        (n_samples, n_features) of mean 0.

    Raises:
        ValueError: As `first_component_share`.
    """
    _, vectors = _spectrum(x)
    centred, first = x - x.mean(0), vectors[:, -1:].to(x)
    return centred - first @ (first.T @ centred)


def _spectrum(x: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues, ascending, and vectors (n, n) of the centred Gram, in float64."""
    if x.ndim != 2 or len(x) < 2:
        raise ValueError(
            f"features: expected (n_samples >= 2, n_features), got shape {tuple(x.shape)}"
        )
    centred = (x - x.mean(0)).double()
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    return values.clamp(min=0), vectors
