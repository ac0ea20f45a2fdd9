"""Curvature of the loss in the images: top eigenvalues of input Hessians."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from repsim_fast._core.batch_checks import check_labels, check_logits, images_device
from repsim_fast._core.borrow import Model, borrow, call
from repsim_fast._core.checks import check_whole
from repsim_fast._core.randomness import Stream

# A Krylov space is exhausted where what is left of a vector is rounding.
_EXHAUSTED = 1e-5


def input_hessian_top(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    iterations: int = 20,
    seed: int | torch.Generator | None = 0,
) -> Tensor:
    """Largest eigenvalue of the Hessian of each image's cross-entropy in its pixels.

    By Lanczos' method with full reorthogonalisation on exact Hessian-vector products (a double
    backward pass each), of all images at once. What it finds lies below the eigenvalue and is exact
    once ``iterations`` reaches the rank of the Hessian: a ReLU network's has one of
    n_classes - 1 at most.

    Args:
        model: Maps images to logits; runs in eval mode and comes back as it was.
        x: Images (N, ...).
        y: Labels (N,).
        iterations: Hessian-vector products, at most as many as an image has pixels.
        seed: Int or ``torch.Generator`` of the first vectors.

    Returns:
        (N,), dtype of the images, float32 at least.

    Raises:
        ValueError: Less than one iteration, labels out of range, an empty batch.
        TypeError: Images that are not floating point, labels that are no integers, iterations that
            are no whole number.

    Example:
        >>> model = lambda x: torch.stack((x[:, 0], -x[:, 0]), 1)
        >>> x, y = torch.zeros(1, 3), torch.zeros(1, dtype=torch.int64)
        >>> print(f"{input_hessian_top(model, x, y).item():.4f}")  # of log(1 + exp(-2 x)): 4 / 4
        1.0000

    References:
        Lanczos, 1950; for training, Ortiz-Jimenez et al., "Catastrophic overfitting can be induced
        with discriminative non-robust features", 2022.
    """
    check_whole(iterations=iterations)
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, got {iterations}")
    device = images_device(x)
    if x.ndim < 2 or x.numel() == 0:
        raise ValueError(f"x must be a non-empty batch (N, ...), got shape {tuple(x.shape)}")
    stream = Stream(seed)
    with borrow(model, device=device, seed=stream.seed()):
        labels = check_labels(y, x)
        images = x.detach().clone()
        images = (images if images.dtype == torch.float64 else images.float()).requires_grad_()
        logits = call(model, images)
        check_logits(logits, labels)
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        # Of a sum over images: each one's gradient, and product, is its own.
        (gradient,) = torch.autograd.grad(loss, images, create_graph=True)

        def product(v: Tensor) -> Tensor:
            if not gradient.requires_grad:  # a linear loss
                return torch.zeros_like(v)
            (answer,) = torch.autograd.grad(
                gradient, images, v.view_as(images), retain_graph=True, allow_unused=True
            )
            return torch.zeros_like(v) if answer is None else answer.detach().flatten(1)

        d = images[0].numel()
        start = torch.randn(
            (len(x), d), dtype=images.dtype, device=device, generator=stream.on(device)
        )
        return _top(product, start, min(iterations, d))


@torch.no_grad()
def _top(product: Callable[[Tensor], Tensor], start: Tensor, iterations: int) -> Tensor:
    """Largest eigenvalue of each of the symmetric operators, (N,)."""
    n = len(start)
    q = torch.nn.functional.normalize(start, dim=1)
    basis: list[Tensor] = []
    small = torch.zeros(n, iterations, iterations, dtype=torch.float64, device=start.device)
    alive = torch.ones(n, dtype=torch.bool, device=start.device)
    scale = torch.zeros(n, dtype=start.dtype, device=start.device)
    for step in range(iterations):
        with torch.enable_grad():
            image = product(q)
        basis.append(q)
        diagonal = (q * image).sum(1).double()
        # An exhausted space stays as it is: a Rayleigh quotient of its own moves no maximum.
        small[:, step, step] = torch.where(alive, diagonal, small[:, 0, 0])
        scale = torch.maximum(scale, torch.linalg.vector_norm(image, dim=1))
        if step == iterations - 1:
            break
        held = torch.stack(basis, 1)  # (N, step + 1, d)
        rest = image
        for _ in range(2):  # twice is enough
            rest = rest - torch.einsum("nk,nkd->nd", torch.einsum("nkd,nd->nk", held, rest), held)
        length = torch.linalg.vector_norm(rest, dim=1)
        alive = alive & (length > _EXHAUSTED * scale)
        coupling = torch.where(alive, length, 0.0).double()
        small[:, step, step + 1] = small[:, step + 1, step] = coupling
        q = torch.where(alive[:, None], rest / length.clamp(min=1e-30)[:, None], 0.0)
    values: Tensor = torch.linalg.eigvalsh(small)
    return values[:, -1].to(start.dtype)
