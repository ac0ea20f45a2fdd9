"""CKA of all layers of several networks, with what it is without each batch of images."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from repsim_fast import Grid, compare
from repsim_fast._core import headers
from repsim_fast._core.tensor_files import read_tensors, write_tensors
from repsim_fast.analysis.estimates import Array, Estimate, jackknife, jackknife_error
from repsim_fast.analysis.grids import STEM, mean_same_layer, stages_by_name
from repsim_fast.analysis.stages import making_stages

LayerRule = Callable[[str, nn.Module], bool]
"""(name, module) -> whether the layer is compared."""

_NAMES = headers.listed(headers.text())
_LABELS = headers.record(
    {"views": _NAMES, "layers": headers.listed(_NAMES), "makers": headers.listed(_NAMES)}
)


@dataclass(frozen=True, eq=False)
class Comparison:
    """CKA of all layers of all views, with the values that leave out one batch of images each.

    Attributes:
        views: Names of the networks, each on the images that it looks at.
        layers: Names of the layers of each.
        value: (L, L) over the layers of all views.
        replicates: (batches, L, L).
        makers: Stage that made what each layer shows, of each view.
    """

    views: tuple[str, ...]
    layers: tuple[tuple[str, ...], ...]
    value: Array
    replicates: Array
    makers: tuple[tuple[str, ...], ...] = ()

    def stages(self, view: str) -> tuple[str, ...]:
        """Stage of each layer of a view, by the module's name."""
        return stages_by_name(self.layers[self.views.index(view)])

    def made_by(self, view: str) -> tuple[str, ...]:
        """Stage that made what each layer of a view shows."""
        return self.makers[self.views.index(view)]

    def estimate(self, index: Callable[..., float], *pairs: tuple[str, str]) -> Estimate:
        """A function of the grids of pairs of views, with its jackknife standard error.

        The replicates are those of the same images, so that differences of grids come out with
        the error of the difference.
        """
        value, left_out = self._on_grids(index, pairs)
        return jackknife(value, left_out)

    def curve(self, index: Callable[..., Array], *pairs: tuple[str, str]) -> list[Estimate]:
        """The same for a function with many values."""
        value, left_out = self._on_grids(index, pairs)
        errors = jackknife_error(left_out)
        return [Estimate(float(v), float(e)) for v, e in zip(value, errors, strict=True)]

    def same_layer(self) -> list[list[Estimate]]:
        """Mean same-layer CKA of each pair of views, which have layers of equal number."""
        return [[self.estimate(mean_same_layer, (a, b)) for b in self.views] for a in self.views]

    def grid(self, a: str, b: str, at: Sequence[int] | None = None) -> Grid:
        """For plotting; ``at`` are the positions of the layers that are shown, None for all."""
        cells = self._cells(a, b)
        value, left_out = self.value[cells], self.replicates[(slice(None), *cells)]
        rows, columns = (self.layers[self.views.index(v)] for v in (a, b))
        if at is not None:
            value, left_out = value[np.ix_(at, at)], left_out[:, at][:, :, at]
            rows, columns = (tuple(names[i] for i in at) for names in (rows, columns))
        return Grid(a, b, rows, columns, value, jackknife_error(left_out), "cka", left_out)

    def _on_grids(self, index: Callable[..., Any], pairs: tuple[tuple[str, str], ...]) -> Any:
        """The function's value, and those without each batch."""
        cells = [self._cells(a, b) for a, b in pairs]
        value, *left_out = (index(*(m[c] for c in cells)) for m in (self.value, *self.replicates))
        return value, np.array(left_out)

    def _cells(self, a: str, b: str) -> Any:
        starts = np.cumsum([0, *map(len, self.layers)])
        i, j = self.views.index(a), self.views.index(b)
        return np.ix_(range(starts[i], starts[i + 1]), range(starts[j], starts[j + 1]))

    def save(self, path: Path) -> None:
        """Whole or not at all, in float32: it halves the folder, and CKA has not seven digits."""
        labels = json.dumps({"views": self.views, "layers": self.layers, "makers": self.makers})
        arrays = {
            # In order: the file takes the memory as it lies.
            name: np.ascontiguousarray(getattr(self, name), dtype=np.float32)
            for name in ("value", "replicates")
        }
        write_tensors(path, arrays, {"labels": labels}, "numpy")

    @classmethod
    def load(cls, path: Path) -> Comparison:
        """What `save` wrote.

        Raises:
            ValueError: It is no such file.
        """
        metadata, arrays = read_tensors(path, "numpy")
        labels = headers.parsed(metadata.get("labels"), _LABELS, str(path))
        views = tuple(labels["views"])
        layers, makers = (tuple(map(tuple, labels[key])) for key in ("layers", "makers"))
        size = sum(map(len, layers))
        groups = len(arrays.get("replicates", ()))
        wanted = {"value": (size, size), "replicates": (groups, size, size)}
        if len(views) != len(layers) or {n: a.shape for n, a in arrays.items()} != wanted:
            raise ValueError(f"{path} holds no comparison of {len(views)} views, {size} layers")
        if makers and list(map(len, makers)) != list(map(len, layers)):
            raise ValueError(f"{path}: expected a stage for each layer, got others")
        if any(array.dtype != np.float32 for array in arrays.values()):
            raise ValueError(f"{path}: expected float32, got other numbers")
        value, replicates = (arrays[name].astype(np.float64) for name in wanted)
        return cls(views, layers, value, replicates, makers)


def compare_networks(
    models: Mapping[str, nn.Module],
    images: Tensor,
    others: Mapping[str, Tensor],
    *,
    layers: LayerRule,
    batch_size: int,
    device: str,
) -> Comparison:
    """All layers of all networks, each on ``images`` or on its ``others`` of the same positions."""
    size = min(batch_size, len(images) // 2)  # a jackknife needs two batches
    positions = torch.arange(len(images) // size * size)  # its groups are of one size
    found = compare(
        models,
        # The positions stand in for labels: other images are looked up by them. As numbers, since
        # labels that ascend would be an order to be warned of.
        data=(images[positions], positions.double()),
        layers=layers,
        inputs={name: _Look(x) for name, x in others.items()} or None,
        batch_size=size,
        # Test images come in random order; groups of batches stay those of results kept before.
        shuffle=False,
        device=device,
    )
    assert found.replicates is not None  # there are two batches
    two = images[:2].to(device)
    makers = tuple(
        _makers(model, two, names)
        for model, names in zip(models.values(), found.layers, strict=True)
    )
    return Comparison(found.models, found.layers, found.value, found.replicates, makers)


def _makers(model: nn.Module, images: Tensor, layers: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return making_stages(model, images, layers)
    except ValueError:  # a network without stages, which has no blocks of them either
        return (STEM,) * len(layers)


class _Look:
    """A comparison's input transform: images that were made before, by position."""

    def __init__(self, images: Tensor) -> None:
        self.images = images

    def __call__(self, x: Tensor, positions: Tensor | None) -> Tensor:
        assert positions is not None  # they stand in for labels
        return self.images[positions.long().cpu()].to(x.device)
