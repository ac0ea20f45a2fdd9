"""Pruning by what weights are: their magnitude, or their filter's L1 norm."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor, nn

from repsim_fast._core.checks import check_choice

from .layers import CONVOLUTIONS, LINEAR_MAPS, check_maskable, chosen, weight_of
from .mask import check_unmasked, mask_of, put_on
from .selection import check_sparsity, largest, n_kept

Criterion = Literal["magnitude", "filters"]
Scope = Literal["layer", "global"]


@torch.no_grad()
def hold_zeros(model: nn.Module, *, layers: Collection[str] | None = None) -> None:
    """Mask the weights that are 0, so that a pruned network that was saved dense stays pruned.

    Args:
        model: As for ``prune``, its layers without masks.
        layers: Names of the layers; default: all linear and convolutional ones.

    Raises:
        TypeError, ValueError: As ``prune``, or no weight that is 0.

    Example:
        >>> import torch
        >>> from repsim_fast import pruning
        >>> layer = torch.nn.Linear(4, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, 0.0, 2.0, 0.0]]))
        >>> pruning.hold_zeros(layer)
        >>> pruning.report(layer).sparsity
        0.5
    """
    picked = chosen(model, layers)
    check_unmasked(picked)
    check_maskable(model, picked)
    masks = [weight_of(layer) != 0 for layer in picked.values()]
    if all(bool(keep.all()) for keep in masks):
        raise ValueError("model: expected weights that are 0, got none in a layer to mask")
    put_on(picked, masks)


@torch.no_grad()
def prune(
    model: nn.Module,
    sparsity: float,
    *,
    criterion: Criterion = "magnitude",
    scope: Scope = "layer",
    layers: Collection[str] | None = None,
    further: bool = False,
) -> None:
    """Mask the least important weights, floor(sparsity n) of n, in place.

    The masks are parametrisations of the layers' weights: they hold in training (also with
    weight perturbation and averages), are part of the state dict and so of a resumed training, and
    compile.
    A pruned weight is 0 underneath as well. Biases and norms are never pruned: the map of a pruned
    filter is its bias.

    Args:
        model: Its linear and convolutional layers, also transposed ones, are masked.
        sparsity: Share that is pruned in the end, in [0, 1).
        criterion: "magnitude", the smallest \\|w\\|; "filters", whole filters of convolutions, not
            of transposed ones, with the smallest L1 norm.
        scope: "layer", the same share of each layer; "global", the smallest of all layers together,
            of "magnitude" only, as filters of different layers have different numbers of weights.
        layers: Names of the layers; default: all of the kind, first and last as well. Layers of
            other sparsities are pruned by calls of their own.
        further: Go on from the masks that the layers have; what is pruned stays pruned.

    Raises:
        TypeError: No module, or a sparsity that is no number.
        ValueError: Sparsity out of range or below what it is already, masks without ``further`` or
            ``further`` without masks, a layer that would be empty, an unknown name, a weight that
            is shared, not finite or parametrised otherwise. The model is as it was.

    Example:
        >>> import torch
        >>> from repsim_fast import pruning
        >>> layer = torch.nn.Linear(4, 1, bias=False)
        >>> _ = layer.weight.data.copy_(torch.tensor([[3.0, -1.0, 2.0, -4.0]]))
        >>> pruning.prune(layer, 0.5)
        >>> layer.weight.tolist()
        [[3.0, 0.0, 0.0, -4.0]]

    References:
        Han et al., "Learning both weights and connections", 2015; Li et al., "Pruning filters for
        efficient ConvNets", 2017; Sehwag et al., "Towards compact and robust deep neural networks",
        2019.
    """
    check_sparsity(sparsity)
    check_choice("criterion", criterion, ("magnitude", "filters"))
    check_choice("scope", scope, ("layer", "global"))
    if criterion == "filters" and scope == "global":
        raise ValueError("scope: criterion 'filters' goes with scope 'layer', got 'global'")
    picked = chosen(model, layers, CONVOLUTIONS if criterion == "filters" else LINEAR_MAPS)
    _check_masks(model, picked, further)
    importances = [_importance(layer, criterion) for layer in picked.values()]
    keep = _kept(importances, sparsity, scope)
    masks: list[Tensor] = []
    for (name, layer), kept, importance in zip(picked.items(), keep, importances, strict=True):
        if not bool(kept.any()):
            raise ValueError(
                f"sparsity: {sparsity} would leave layer {name!r} without a weight: lower it, or "
                "take scope 'layer'"
            )
        before, mask = mask_of(layer), kept.expand_as(weight_of(layer))
        if before is not None and bool((kept & (importance < 0)).any()):
            raise ValueError(
                f"sparsity: expected no less than layer {name!r} has already, "
                f"{1 - before.keep.double().mean().item():.4g}, got {sparsity}"
            )
        masks.append(mask.clone() if before is None else mask & before.keep)
    put_on(picked, masks)


def _check_masks(model: nn.Module, picked: dict[str, nn.Module], further: bool) -> None:
    """Raises ValueError where layers are masked, or not, against what ``further`` says."""
    if not further:
        check_unmasked(picked, ": give further=True to go on")
        check_maskable(model, picked)
    elif bare := [name for name, layer in picked.items() if mask_of(layer) is None]:
        raise ValueError(f"further: expected the layers that have masks, got {bare[0]!r}, too")


def _importance(layer: nn.Module, criterion: Criterion) -> Tensor:
    """Of each weight, or of each filter (n, 1, ...); -1 where it is pruned already."""
    weight, mask = weight_of(layer).detach(), mask_of(layer)
    # Sums of 16-bit magnitudes would tie.
    importance = weight.abs().to(torch.promote_types(weight.dtype, torch.float32))
    pruned = torch.zeros_like(weight, dtype=torch.bool) if mask is None else ~mask.keep
    if criterion == "filters":
        inner = tuple(range(1, weight.ndim))
        importance = importance.sum(inner, keepdim=True)
        pruned = pruned.flatten(1).all(1).view_as(importance)
    return importance.masked_fill(pruned, -1.0)


def _kept(importances: list[Tensor], sparsity: float, scope: Scope) -> list[Tensor]:
    if scope == "layer":
        return [largest(x, n_kept(sparsity, x.numel())) for x in importances]
    together = torch.cat([x.flatten() for x in importances])
    mask = largest(together, n_kept(sparsity, together.numel()))
    parts = torch.split(mask, [x.numel() for x in importances])
    return [part.view(x.shape) for part, x in zip(parts, importances, strict=True)]
