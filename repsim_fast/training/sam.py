"""Sharpness-aware minimisation."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from repsim_fast._core.buffers import buffers_kept


@contextlib.contextmanager
def sharpest_weights(
    model: nn.Module, loss: Callable[[], Tensor], rho: float, scaler: torch.amp.GradScaler
) -> Iterator[None]:
    """Weights w + rho g / |g|, within; the old ones, bit for bit, afterwards (Foret et al., 2021).

    g is the gradient of the loss at w with respect to all parameters together. As in the authors'
    code, running statistics see the pass at w and not those within, both passes draw the same
    random numbers, and each of several processes takes the gradient of its own share of the batch
    ("m-sharpness").

    Args:
        model: The model in training.
        loss: Computes the batch's loss from the model as it is.
        rho: L2 norm of the perturbation; published 0.05.
        scaler: Of the loss. Weights stay where the scaled gradient overflows, as the scaler itself
            leaves out steps that do.
    """
    weights = [p for p in model.parameters() if p.requires_grad]
    devices = [weights[0].device] if weights[0].device.type == "cuda" else []
    with torch.random.fork_rng(devices):
        gradients = torch.autograd.grad(scaler.scale(loss()), weights, allow_unused=True)
    with torch.no_grad():
        moved = [
            (w, w.clone(), g) for w, g in zip(weights, gradients, strict=True) if g is not None
        ]
        # The largest entry first: scaled gradients may be too large to be squared.
        largest = torch.stack([g.abs().max() for _, _, g in moved]).max()
        if 0 < largest < torch.inf:
            norms = [torch.linalg.vector_norm(g / largest) for _, _, g in moved]
            length = torch.linalg.vector_norm(torch.stack(norms))
            for weight, _, gradient in moved:
                weight.add_(gradient / largest, alpha=float(rho / length))
    try:
        with buffers_kept([model]):
            yield
    finally:
        with torch.no_grad():
            for weight, value, _ in moved:
                weight.copy_(value)
