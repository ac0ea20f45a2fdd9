"""How much of a change of a layer's input goes through the weights that pruning takes away."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from repsim_fast.analysis.estimates import Estimate, jackknife
from repsim_fast.analysis.grids import Array

IMAGES, ATTACK, NOISE = "images", "attack", "noise"

Energies = Mapping[str, Mapping[str, Array]]
"""Layer -> change -> (2, groups): squared norms of its outcome by pruned and by kept weights."""


@torch.no_grad()
def energies(
    dense: nn.Module,
    pruned: nn.Module,
    images: Tensor,
    others: Mapping[str, Tensor],
    *,
    groups: int = 10,
) -> dict[str, dict[str, list[list[float]]]]:
    """Energy, of each layer's weights W of the dense network, of W_pruned d and of W_kept d.

    d is a change of the layer's input: that of images from their mean, or that from images to the
    other ones of the same places. Weights are pruned where the other network has 0.

    Args:
        dense: In eval mode.
        pruned: Of the same architecture.
        images: (N, C, H, W).
        others: Changed images by name.
        groups: Of images, for standard errors; image i is in group i modulo ``groups``.
    """
    weights = dict(pruned.named_modules())
    clean = _inputs(dense, images)
    changes = {IMAGES: {name: x - x.mean(0) for name, x in clean.items()}}
    for kind, changed in others.items():
        inputs = _inputs(dense, changed)
        changes[kind] = {name: x - clean[name] for name, x in inputs.items()}
    found: dict[str, dict[str, list[list[float]]]] = {}
    for name, layer in _linear_maps(dense).items():
        gone = weights[name].weight == 0
        for kind, inputs in changes.items():
            found.setdefault(name, {})[kind] = [
                _by_group(_applied(layer, layer.weight * mask, inputs[name]), groups)
                for mask in (gone, ~gone)
            ]
    return found


def excess(found: Energies, change: str) -> Estimate:
    """Share of a change that pruned weights carry, minus that of images; mean over layers.

    The share of a layer is |W_pruned d|^2 / (|W_pruned d|^2 + |W_kept d|^2), summed over images.
    """
    return _over_groups(
        found, lambda own, left: share_of(own[change], left) - share_of(own[IMAGES], left)
    )


def mean_share(found: Energies, change: str) -> Estimate:
    """Mean over layers of that share, see ``excess``."""
    return _over_groups(found, lambda own, left: share_of(own[change], left))


def share_of(energy: Any, left: Any) -> float:
    """Of one layer and change; ``left`` has the groups that count."""
    pruned, kept = np.asarray(energy)[:, left].sum(1)
    return float(pruned / (pruned + kept))


def _over_groups(found: Energies, index: Any) -> Estimate:
    first = next(iter(found.values()))[IMAGES]
    groups = np.arange(len(first[0]))

    def mean(left: Any) -> float:
        return float(np.mean([index(own, left) for own in found.values()]))

    return jackknife(mean(groups), [mean(np.delete(groups, g)) for g in groups])


def _linear_maps(model: nn.Module) -> dict[str, nn.Module]:
    return {n: m for n, m in model.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}


def _applied(layer: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, None, layer.stride, layer.padding, layer.dilation, layer.groups)
    return F.linear(x, weight)


def _by_group(outcome: Tensor, groups: int) -> list[float]:
    """Sums of squares over the images of each group."""
    squares = outcome.double().square().flatten(1).sum(1)
    return [float(squares[group::groups].sum()) for group in range(groups)]


def _inputs(model: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """What each linear map reads."""
    found: dict[str, Tensor] = {}
    with _watched(model, found):
        model(images)
    return found


@contextlib.contextmanager
def _watched(model: nn.Module, found: dict[str, Tensor]) -> Iterator[None]:
    def watch(name: str) -> Any:
        def take(module: nn.Module, inputs: Any) -> None:
            found[name] = inputs[0].clone()

        return take

    hooks = [m.register_forward_pre_hook(watch(n)) for n, m in _linear_maps(model).items()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
