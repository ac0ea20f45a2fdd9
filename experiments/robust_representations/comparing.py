"""CKA of all layers of several networks, with what it is without each batch of images."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from repsim_fast import compare
from repsim_fast.capture import Capture
from repsim_fast.comparison.grid import Grid
from repsim_fast.ops import centered_gram
from repsim_fast.similarity import MinibatchCKA

from . import indices
from .indices import Estimate, Matrix

__all__ = ["BatchedCKA", "Comparison", "compare_networks", "is_paper_layer"]

_PAPER_LAYERS = (
    nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Linear,
)  # fmt: skip


def is_paper_layer(name: str, module: nn.Module) -> bool:
    """The layers that the paper compares."""
    return isinstance(module, _PAPER_LAYERS)


class BatchedCKA:
    """Minibatch CKA of many layers that remembers each batch's HSICs.

    One pass over the images thus gives the values without each batch, from which the jackknife
    error of any function of the grid follows. Batches are of one size.
    """

    def __init__(self) -> None:
        self._hsic: list[Tensor] = []

    def add(self, grams: Sequence[Tensor], n: int) -> None:
        """A batch of n images: the packed, U-centred Gram of each layer."""
        one = MinibatchCKA()
        one.update(torch.stack(list(grams)), n=n)
        self._hsic.append(one.hsic().cpu())

    def value(self) -> Matrix:
        """(L, L) over all batches."""
        return _ratio(torch.stack(self._hsic).sum(0))

    def without_each(self) -> Matrix:
        """(batches, L, L): the values without one batch each."""
        total = torch.stack(self._hsic).sum(0)
        return np.stack([_ratio(total - one) for one in self._hsic])


def _ratio(hsic: Tensor) -> Matrix:
    own = hsic.diagonal().clamp_min(0).sqrt()
    own = torch.where(own > 0, own, torch.nan)
    found: Matrix = (hsic / own[:, None] / own[None, :]).numpy()
    return found


@dataclass(frozen=True, eq=False)
class Comparison:
    """CKA of all layers of all views, with the values that leave out one batch of images each.

    Attributes:
        value: (L, L) over the layers of all views.
        replicates: (batches, L, L).
    """

    views: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    value: Matrix
    replicates: Matrix

    def stages(self, view: str) -> tuple[str, ...]:
        """Stage of each layer of a view."""
        return indices.stages_of(self.layers[self.views.index(view)])

    def estimate(self, index: Callable[..., float], *pairs: tuple[str, str]) -> Estimate:
        """A function of the grids of pairs of views, with its jackknife standard error.

        The replicates are those of the same images, so that differences of grids come out with
        the error of the difference.
        """
        cells = [self._cells(a, b) for a, b in pairs]
        value = index(*(self.value[c] for c in cells))
        return indices.jackknife(value, [index(*(r[c] for c in cells)) for r in self.replicates])

    def curve(self, index: Callable[..., Matrix], *pairs: tuple[str, str]) -> list[Estimate]:
        """The same for a function with many values."""
        cells = [self._cells(a, b) for a, b in pairs]
        value = index(*(self.value[c] for c in cells))
        left_out = np.array([index(*(r[c] for c in cells)) for r in self.replicates])
        return [indices.jackknife(v, left_out[:, i]) for i, v in enumerate(value)]

    def same_layer(self) -> list[list[Estimate]]:
        """Mean same-layer CKA of each pair of views, which have layers of equal number."""
        return [
            [self.estimate(indices.mean_same_layer, (a, b)) for b in self.views] for a in self.views
        ]

    def grid(self, a: str, b: str) -> Grid:
        """For plotting."""
        cells = self._cells(a, b)
        se = indices.jackknife_errors(self.replicates[(slice(None), *cells)])
        rows, columns = (self.layers[self.views.index(v)] for v in (a, b))
        return Grid(a, b, rows, columns, self.value[cells], se, "cka")

    def _cells(self, a: str, b: str) -> Any:
        starts = np.cumsum([0, *map(len, self.layers)])
        i, j = self.views.index(a), self.views.index(b)
        return np.ix_(range(starts[i], starts[i + 1]), range(starts[j], starts[j + 1]))

    def save(self, path: Path) -> None:
        """Whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        labels = json.dumps({"views": self.views, "layers": self.layers})
        # float32 halves the folder; CKA is not known to seven digits.
        arrays = {
            "value": self.value.astype(np.float32),
            "replicates": self.replicates.astype(np.float32),
        }
        part = path.with_suffix(".part")
        save_file(arrays, part, {"labels": labels})
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """What `save` wrote."""
        with safe_open(path, framework="numpy") as file:
            labels = json.loads(file.metadata()["labels"])
            value, replicates = (
                file.get_tensor(n).astype(np.float64) for n in ("value", "replicates")
            )
        layers = tuple(map(tuple, labels["layers"]))
        return cls(tuple(labels["views"]), layers, value, replicates)


def compare_networks(
    models: Mapping[str, nn.Module],
    images: Tensor,
    others: Mapping[str, Tensor],
    *,
    batch_size: int,
    device: str,
) -> Comparison:
    """All layers of all networks, each on ``images`` or on its ``others`` of the same positions.

    The values are those of ``repsim_fast.compare``; a second pass over the same batches keeps
    what that does not give out, the share of each batch.
    """
    size = min(batch_size, len(images) // 2)  # a jackknife needs two batches
    positions = torch.arange(len(images) // size * size)  # its groups are of one size
    whole = compare(
        models,
        # The positions stand in for labels: other images are looked up by them.
        data=(images[positions], positions),
        layers=is_paper_layer,
        inputs={name: _Look(x) for name, x in others.items()} or None,
        batch_size=size,
        device=device,
    )
    batched = BatchedCKA()
    for batch in positions.split(size):
        grams: list[Tensor] = []
        for name, model in models.items():
            x = others.get(name, images)[batch].to(device)
            grams.extend(_grams(model.to(device).eval(), x))
        batched.add(grams, size)
    left_out = batched.without_each()
    left_out[:, np.isnan(whole.value)] = np.nan  # layers that compare found constant
    return Comparison(whole.models, whole.layers, whole.value, left_out)


def _grams(model: nn.Module, x: Tensor) -> Iterable[Tensor]:
    grams: list[Tensor] = []

    def take(name: str, features: Tensor) -> None:
        grams.append(centered_gram(features, packed=True))

    with torch.no_grad(), Capture(model, is_paper_layer, on_activation=take):
        model(x)
    return grams


class _Look:
    """A comparison's input transform: images that were made before, by position."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __call__(self, x: Tensor, positions: Tensor) -> Tensor:
        return self.images[positions.cpu()].to(x.device)
