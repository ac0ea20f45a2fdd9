"""Masks that are learned: scores of weights, trained while the weights are frozen (HYDRA)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from repsim_fast._core.model_state import unwrap
from repsim_fast.capture.kinds import layer_kind

from .layers import check_maskable, chosen, weight_of
from .mask import Mask, check_unmasked, original, parametrization_of, put_on, take_off
from .selection import check_sparsity, largest, n_kept


class LearnedMask(nn.Module):
    """Keeps the weights with the largest scores by magnitude; gradients pass to all scores.

    Args:
        scores: First values, of the weight's shape.
        kept: How many weights are kept.
    """

    def __init__(self, scores: Tensor, kept: int) -> None:
        super().__init__()
        self.scores = nn.Parameter(scores)
        self.kept = kept

    def forward(self, weight: Tensor) -> Tensor:
        """The masked weight, whose gradient to |score| is that of the mask (straight-through)."""
        size = self.scores.abs()
        # size - size is exactly 0: the values are the mask's, the gradient is the identity's.
        return weight * (self.mask().to(size.dtype) + (size - size.detach()))

    def mask(self) -> Tensor:
        """What is kept by the present scores, bool."""
        return largest(self.scores.detach().abs(), self.kept)


def is_masked(layer: nn.Module) -> bool:
    """Whether a layer's weight has a mask of either kind."""
    return isinstance(parametrization_of(layer), Mask | LearnedMask)


def kept_weights(model: nn.Module) -> dict[str, int]:
    """How many weights the mask of each masked layer keeps, by the layer's name."""
    kept = {}
    for name, layer in unwrap(model).named_modules():
        mask = parametrization_of(layer)
        if isinstance(mask, Mask):
            kept[name] = int(mask.keep.sum())
        elif isinstance(mask, LearnedMask):
            kept[name] = mask.kept
    return kept


@contextlib.contextmanager
def learned_scores(
    model: nn.Module, sparsity: float, *, layers: Collection[str] | None = None
) -> Iterator[None]:
    """A model whose training inside learns which weights to keep; pruned to them afterwards.

    Each layer keeps the k weights with the largest |s|; scores begin at
    s = sqrt(6 / fan_in) w / max|w|, so that the first mask is that of the magnitudes. Inside, the
    scores are the parameters of the layers, and the weights and biases of all layers but norms are
    frozen. Afterwards the masks are those of ``prune``, to be trained further, and parameters
    require gradients as before. After an exception the model has its weights back, unpruned.

    A resumed training begins in the same way again: ``learned_scores`` on the model that it began
    with, ``train`` with ``Saving(folder, resume=True)`` inside.

    Args:
        model: With trained weights.
        sparsity: Share of each layer that is pruned, in [0, 1).
        layers: Names of the layers; default: all linear and convolutional ones.

    Raises:
        TypeError, ValueError: As ``prune``, or a layer whose weights are all 0.

    Example:
        >>> from repsim_fast import data, models, pruning, training
        >>> network = models.build("resnet-digits", num_classes=10, in_channels=1, seed=0)
        >>> images = data.load("digits", "train", limit=64)
        >>> with pruning.learned_scores(network, 0.9):
        ...     _ = training.train(network, images, epochs=1, progress=False)
        >>> round(pruning.report(network).sparsity, 2)
        0.9

    References:
        Sehwag et al., "HYDRA: Pruning adversarially robust neural networks", 2020.
    """
    check_sparsity(sparsity)
    picked = chosen(model, layers)
    check_unmasked(picked)
    check_maskable(model, picked)
    masks = {name: _begin(name, layer, sparsity) for name, layer in picked.items()}
    required = {parameter: parameter.requires_grad for parameter in _frozen(model)}
    try:
        for name, layer in picked.items():
            parametrize.register_parametrization(layer, "weight", masks[name])
            layer.train(layer.training)  # new parts begin in training mode
        for parameter in required:
            parameter.requires_grad_(False)
        yield
    finally:
        for layer in picked.values():
            if not parametrize.is_parametrized(layer, "weight"):
                continue
            if parametrize.is_parametrized(layer, "bias"):  # whose own parametrisation stays
                parametrize.remove_parametrizations(layer, "weight", leave_parametrized=False)
            else:
                take_off(layer, original(layer))
        for parameter, before in required.items():
            parameter.requires_grad_(before)
    put_on(picked, [mask.mask() for mask in masks.values()])


@torch.inference_mode(False)  # whose tensors could not be trained
@torch.no_grad()
def _begin(name: str, layer: nn.Module, sparsity: float) -> LearnedMask:
    weight = weight_of(layer).detach()
    top = weight.abs().max()
    if not top > 0:
        raise ValueError(f"model: expected weights other than 0 in layer {name!r}, got none")
    scores = weight * (math.sqrt(6 / weight[0].numel()) / top)
    return LearnedMask(scores, n_kept(sparsity, weight.numel()))


def _frozen(model: nn.Module) -> list[nn.Parameter]:
    """The parameters of all layers but norms."""
    modules = [m for m in unwrap(model).modules() if layer_kind(m) != "norm"]
    return [parameter for m in modules for parameter in m.parameters(recurse=False)]
