"""Mean activation of every unit for each class, in one pass over the data."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast.capture import LayerSpec, MaskSpec, run

from .units import batches, watching


class ClassMeans:
    """Sums of units by class in float64, of layers as they come; labels are any integers.

    Memory is that of classes x units, whatever the number of samples.

    Attributes:
        counts: Samples of each class seen so far.
    """

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self._row_of: dict[int, int] = {}
        self._sums: dict[str, Tensor] = {}  # (rows, n_units), rows of classes as they first came
        self._seen: dict[str, int] = {}  # samples
        self._rows = torch.empty(0, dtype=torch.int64)

    def start_batch(self, y: Tensor) -> None:
        """The labels (n,) of what is added next.

        Raises:
            TypeError: Labels that are no integers.
            ValueError: Labels of another shape.
        """
        if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
            raise TypeError(f"labels must be integers, one for each sample, got {y.dtype}")
        if y.ndim != 1:
            raise ValueError(f"labels must have shape (n,), got {tuple(y.shape)}")
        classes, where, counts = torch.unique(y.cpu(), return_inverse=True, return_counts=True)
        for label, count in zip(classes.tolist(), counts.tolist(), strict=True):
            self._row_of.setdefault(label, len(self._row_of))
            self.counts[label] = self.counts.get(label, 0) + count
        rows = torch.tensor([self._row_of[label] for label in classes.tolist()], dtype=torch.int64)
        self._rows = rows[where]

    def add(self, layer: str, units: Tensor) -> None:
        """Units (n, n_units) of the batch's samples.

        Raises:
            ValueError: Not one row for each label, or no units.
        """
        n = len(self._rows)
        if units.ndim != 2 or len(units) != n or not units.shape[1]:
            raise ValueError(
                f"layer {layer!r} must have units for each of the {n} samples, (n, n_units >= 1), "
                f"got {tuple(units.shape)}"
            )
        sums = self._sums.get(layer)
        if sums is None:
            sums = units.new_zeros(0, units.shape[1], dtype=torch.float64)
        if len(sums) < len(self._row_of):
            new = sums.new_zeros(len(self._row_of) - len(sums), sums.shape[1])
            sums = torch.cat((sums, new))
        self._sums[layer] = sums.index_add_(0, self._rows.to(units.device), units.double())
        self._seen[layer] = self._seen.get(layer, 0) + n

    def compute(self) -> tuple[list[int], Tensor, dict[str, Tensor]]:
        """Classes, ascending; samples of each (K,), int64; means (K, n_units) float64 by layer.

        Raises:
            ValueError: Fewer than two classes, a layer that some passes left out, or one whose
                activations are not finite.
        """
        classes = sorted(self.counts)
        if len(classes) < 2:
            raise ValueError(f"data must have at least two classes, got labels {classes}")
        counts = torch.tensor([self.counts[label] for label in classes])
        order = torch.tensor([self._row_of[label] for label in classes])
        total = int(counts.sum())
        means: dict[str, Tensor] = {}
        for layer, sums in self._sums.items():
            if self._seen[layer] != total:
                raise ValueError(
                    f"layer {layer!r} must be called in every pass, got {self._seen[layer]} of "
                    f"{total} samples"
                )
            means[layer] = sums.cpu()[order] / counts[:, None]
            if not bool(means[layer].isfinite().all()):
                raise ValueError(f"layer {layer!r} must have finite activations, got NaN or Inf")
        return classes, counts, means


def class_means(
    model: nn.Module,
    data: Any,
    *,
    layers: LayerSpec = None,
    mask: MaskSpec = None,
    batch_size: int | None = None,
) -> tuple[list[int], Tensor, dict[str, Tensor]]:
    """What ``ClassMeans.compute`` says of a model's layers on labelled data."""
    found = ClassMeans()
    with watching(model, layers, found.add, mask=mask):
        for inputs, y, _ in batches(model, data, batch_size=batch_size):
            if y is None:
                raise ValueError("data must have labels, (x, y) in each batch, got x alone")
            found.start_batch(y)
            run(model, inputs)
    return found.compute()
