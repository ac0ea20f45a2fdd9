"""The first principal component of a layer: how much it holds, and whether layers share it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from repsim_fast._core.checks import check_finite, check_matrix

from .grids import Array
from .moments import is_rounding

__all__ = ["first_component_cosines", "first_component_share", "without_first_component"]


def first_component_share(x: Tensor) -> float:
    """Share of a layer's variance in the direction of most variance, λ_1 / Σ λ_i.

    Args:
        x: (n_samples, n_features), of a floating dtype.

    Returns:
        In (0, 1]; NaN for features that vary by rounding alone. Isotropic features of n samples
        have about (1 + √(p / n))² / p.

    Raises:
        ValueError: Not two dimensions, fewer than two samples, NaN or Inf.
        TypeError: No floating-point tensor.

    Example:
        >>> import torch
        >>> round(first_component_share(torch.outer(torch.arange(4.0), torch.ones(3))), 6)
        1.0

    References:
        Nguyen et al., "Do wide and deep networks learn the same things? Uncovering how neural
        network representations vary with width and depth", section 4.2, 2021.
    """
    values = _spectrum(x).values.detach()
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
        ValueError: No layers, or of different numbers of samples, or as `first_component_share`.
        TypeError: As there.

    References:
        Nguyen et al., "On the origins of the block structure phenomenon in neural network
        representations", 2022.
    """
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    found = [_spectrum(x) for x in layers]
    if len(samples := {len(one.centred) for one in found}) > 1:
        raise ValueError(f"layers: expected the same samples, got {sorted(samples)} of them")
    # A constant layer has a component, of no length.
    scores = [
        one.vectors[:, -1] if float(one.values[-1]) > 0 else one.vectors[:, -1] * float("nan")
        for one in found
    ]
    together = torch.stack([s.detach().cpu() for s in scores])
    cosines: Array = (together @ together.T).abs().clamp(max=1.0).numpy().astype(np.float64)
    return cosines


def without_first_component(x: Tensor) -> Tensor:
    """Centred features without their direction of most variance.

    Similarity that is left after it is removed from every layer does not rest on it.

    Args:
        x: (n_samples, n_features), of a floating dtype.

    Returns:
        (n_samples, n_features) of mean 0, float64 for float64 features, otherwise float32.

    Raises:
        ValueError, TypeError: As `first_component_share`.
    """
    _, vectors, centred = _spectrum(x)
    first = vectors[:, -1:]
    rest = centred - first @ (first.T @ centred)
    return rest.to(torch.promote_types(x.dtype, torch.float32))


class _Spectrum(NamedTuple):
    """Eigenvalues (n,), ascending, and vectors (n, n) of the Gram of centred features, and these
    (n, p), in float64. Values are 0 for features that vary by rounding alone."""

    values: Tensor
    vectors: Tensor
    centred: Tensor


def _spectrum(x: Tensor) -> _Spectrum:
    check_matrix("features", x)
    check_finite("features", x)
    if len(x) < 2:
        raise ValueError(
            f"features: expected (n_samples >= 2, n_features), got shape {tuple(x.shape)}"
        )
    wide = x.double()  # before the mean is taken, which may be many times what varies
    centred = wide - wide.mean(0)
    values, vectors = torch.linalg.eigh(centred @ centred.T)
    size = float(wide.detach().square().sum())
    eps = torch.finfo(torch.promote_types(x.dtype, torch.float32)).eps
    if is_rounding(float(centred.detach().square().sum()), size, eps):
        values = torch.zeros_like(values)
    return _Spectrum(values.clamp(min=0), vectors, centred)
