"""Class selectivity: how far a unit answers to one class rather than to all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.batch_checks import check_labels
from repsim_fast.capture import LayerSpec, MaskSpec

from .class_means import class_means

__all__ = ["Selectivity", "class_selectivity", "selectivity", "selectivity_of_means"]

_FLOOR = 1e-6


@dataclass(frozen=True, eq=False)
class Selectivity:
    """Class selectivity of the units of a model.

    Attributes:
        units: Index (n_units,) of each layer's units, float64, in order of execution.
        class_means: Mean activation (n_classes, n_units) of each layer, float64.
        classes: Labels, ascending: the rows of the tables.
        counts: Samples of each class.
    """

    units: Mapping[str, Tensor]
    class_means: Mapping[str, Tensor]
    classes: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def layers(self) -> dict[str, float]:
        """Mean over the units of each layer."""
        return {name: float(index.mean()) for name, index in self.units.items()}

    @property
    def mean(self) -> float:
        """Mean over layers of the mean over their units."""
        layers = self.layers
        return sum(layers.values()) / len(layers)

    def __str__(self) -> str:
        width = max(map(len, self.units))
        lines = [f"{n:<{width}}  {v:.3f}  {len(self.units[n])} units" for n, v in
                 self.layers.items()]  # fmt: skip
        return "\n".join([*lines, f"{'mean':<{width}}  {self.mean:.3f}"])


def selectivity(
    model: nn.Module,
    data: Any,
    *,
    layers: LayerSpec = None,
    mask: MaskSpec = None,
    batch_size: int | None = None,
) -> Selectivity:
    """Class selectivity index of every unit of a model's layers, in one pass over labelled data.

    Index of a unit: see :func:`class_selectivity`. A unit is a channel, its activation the mean
    over positions. Class means are exact: sums in float64 of all samples, classes weighted alike
    whatever their frequency.

    Args:
        model: Runs in eval mode without gradients and comes back as it was.
        data: Labelled data as for ``compare``: (x, y), ``ImageData``, a data set, a loader of
            (x, y). Labels are integers; only the classes among them count.
        layers: As for ``Capture``: names, patterns or a function (name, module) -> bool; default
            every ``nn.ReLU``. A module called twice is ``relu`` and ``relu#2``.
        mask: Which tokens are real, as for ``Capture``.
        batch_size: As for ``compare``; no number depends on it.

    Returns:
        ``Selectivity``: index by unit, means by layer and of the network, and the table of class
        means of each layer.

    Raises:
        ValueError: Fewer than two classes, no labels, a layer without units for each sample, one
            that is not finite or not called in every pass; layers that the model does not have.
        TypeError: Labels that are no integers.

    Warns:
        UserWarning: A layer with negative class means, of which the index is not in [0, 1].

    Example:
        >>> import torch
        >>> from repsim_fast.analysis.selectivity import selectivity
        >>> model = torch.nn.Sequential(torch.nn.Identity(), torch.nn.ReLU())
        >>> x, y = torch.tensor([[3.0, 1.0], [0.0, 1.0], [0.0, 1.0]]), torch.tensor([0, 1, 2])
        >>> [round(index, 3) for index in selectivity(model, (x, y)).units["1"].tolist()]
        [1.0, 0.0]

    References:
        Leavitt & Morcos, "Selectivity considered harmful: evaluating the causal impact of class
        selectivity in DNNs", 2020.
    """
    classes, counts, means = class_means(
        model, data, layers=layers, mask=mask, batch_size=batch_size
    )
    if negative := [name for name, table in means.items() if bool((table < 0).any())]:
        warnings.warn(
            f"selectivity: units of {len(negative)} layers, such as {negative[0]!r}, have negative "
            "class means; the index is made for activations that are not, and need not lie in "
            "[0, 1] there",
            stacklevel=2,
        )
    return Selectivity(
        {name: selectivity_of_means(table) for name, table in means.items()},
        means,
        tuple(classes),
        tuple(counts.tolist()),
    )


def class_selectivity(activations: Tensor, y: Tensor) -> Tensor:
    """Class selectivity index of each unit, (mu_max - mu_rest) / (mu_max + mu_rest + 1e-6).

    mu_max is the largest of a unit's mean activations over the classes, mu_rest the mean of the
    other classes' means. In [0, 1] for non-negative activations: 0 for a unit that treats all
    classes alike, 1 for one that answers to a single class.

    Args:
        activations: (N, n_units) or maps (N, n_units, H, W), which are averaged over space first.
        y: Labels (N,), any integers; only the classes among them count.

    Returns:
        (n_units,), differentiable; summed in float64, given in float32 or float64.

    Raises:
        ValueError: Fewer than two classes, activations or labels of another shape.
        TypeError: Activations that are not floating point, labels that are no integers.

    References:
        Leavitt & Morcos, "Selectivity considered harmful", 2020.
    """
    if not isinstance(activations, Tensor) or not activations.is_floating_point():
        got = activations.dtype if isinstance(activations, Tensor) else type(activations).__name__
        raise TypeError(f"activations must be a floating-point tensor, got {got}")
    if activations.ndim < 2:
        raise ValueError(
            f"activations must have shape (N, n_units, ...), got {tuple(activations.shape)}"
        )
    classes, members = torch.unique(check_labels(y, activations), return_inverse=True)
    if len(classes) < 2:
        raise ValueError(f"y must hold at least two classes, got {len(classes)}")
    # of features (N, n_units) the mean of one place
    units = activations.flatten(2) if activations.ndim > 2 else activations.unsqueeze(2)
    units = units.mean(2, dtype=torch.float64)
    # 16 bits hold neither the counts nor the sums, and autocast would take float32 to them.
    belongs = nn.functional.one_hot(members, len(classes)).double()
    index = selectivity_of_means(belongs.T @ units / belongs.sum(0).unsqueeze(1))
    return index.to(torch.promote_types(activations.dtype, torch.float32))


def selectivity_of_means(means: Tensor) -> Tensor:
    """The index of each unit from its class means, see :func:`class_selectivity`.

    Args:
        means: (n_classes >= 2, n_units).

    Returns:
        (n_units,), differentiable.

    Raises:
        ValueError: Fewer than two classes, or another shape.
    """
    if means.ndim != 2 or len(means) < 2:
        raise ValueError(f"means must be (n_classes >= 2, n_units), got {tuple(means.shape)}")
    largest = means.amax(0)
    rest = (means.sum(0) - largest) / (len(means) - 1)
    return (largest - rest) / (largest + rest + _FLOOR)
