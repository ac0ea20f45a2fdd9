"""Class selectivity: how far a unit answers to one class rather than to all."""

from __future__ import annotations

from torch import Tensor, nn

_FLOOR = 1e-6


def class_selectivity(activations: Tensor, y: Tensor) -> Tensor:
    """Class selectivity index of each unit, (mu_max - mu_rest) / (mu_max + mu_rest + 1e-6).

    mu_max is the largest of a unit's mean activations over the classes, mu_rest the mean of the
    other classes' means. In [0, 1] for non-negative activations: 0 for a unit that treats all
    classes alike, 1 for one that answers to a single class.

    Args:
        activations: (N, n_units) or maps (N, n_units, H, W), which are averaged over space first.
        y: Labels (N,); only the classes among them count.

    Returns:
        (n_units,), differentiable.

    Raises:
        ValueError: Fewer than two classes.

    References:
        Leavitt & Morcos, "Selectivity considered harmful", 2020.
    """
    if activations.ndim > 2:
        activations = activations.flatten(2).mean(2)
    belongs = nn.functional.one_hot(y).to(activations.dtype)
    belongs = belongs[:, belongs.any(0)]
    n_classes = belongs.shape[1]
    if n_classes < 2:
        raise ValueError(f"y must hold at least two classes, got {n_classes}")
    means = belongs.T @ activations / belongs.sum(0).unsqueeze(1)  # (n_classes, n_units)
    largest = means.amax(0)
    rest = (means.sum(0) - largest) / (n_classes - 1)
    return (largest - rest) / (largest + rest + _FLOOR)
