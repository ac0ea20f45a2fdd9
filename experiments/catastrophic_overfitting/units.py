"""How many dimensions a layer's units use."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from experiments.lab.comparisons import LayerRule


def participation_ratio(x: Tensor) -> float:
    """(sum l)^2 / sum l^2 of the eigenvalues of the covariance of (n_samples, n_units), NaN for 0.

    1 where all variance lies in one direction, n_units where it is the same in all.
    """
    centred = (x - x.mean(0)).double()
    small = centred @ centred.T if len(x) < x.shape[1] else centred.T @ centred
    trace, square = float(small.trace()), float((small * small).sum())
    return trace**2 / square if square > 0 else float("nan")


@torch.no_grad()
def dimensions(model: nn.Module, images: Tensor, layers: LayerRule) -> dict[str, float]:
    """Participation ratio of each layer's channels, averaged over space, in eval mode."""
    found: dict[str, float] = {}
    handles = [
        module.register_forward_hook(
            lambda _, __, out, name=name: found.__setitem__(
                name, participation_ratio(out.flatten(2).mean(2) if out.ndim > 2 else out)
            )
        )
        for name, module in model.named_modules()
        if layers(name, module)
    ]
    was_training = model.training
    try:
        model.eval()(images)
    finally:
        model.train(was_training)
        for handle in handles:
            handle.remove()
    return found
