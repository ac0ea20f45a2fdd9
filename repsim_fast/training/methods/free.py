"""Free adversarial training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from repsim_fast._core.checks import check_number, check_whole
from repsim_fast.attacks.region import Outside, Region, check_outside
from repsim_fast.ops import Bounds

from .base import Method, TrainingBatch, cross_entropy, noted


@noted
def free(
    eps: float = 8 / 255,
    *,
    replays: int = 8,
    step_size: float | None = None,
    bounds: Bounds = (0.0, 1.0),
    outside: Outside = "error",
) -> Method:
    """Perturbation and weights from one backward pass (Shafahi et al., 2019).

    Each batch is trained on ``replays`` times; every backward pass also moves the perturbation by
    one sign step. The perturbation is carried from batch to batch and begins at 0 in each epoch.
    For the cost of E epochs of standard training choose E / replays epochs.

    Args:
        eps: Radius in image units.
        replays: Optimizer steps on each batch, m in the paper.
        step_size: Default eps.
        bounds: As in ``attacks.PGD``.
        outside: As in ``attacks.PGD``.
    """
    check_outside(outside, cuda_graph=False)
    check_whole(replays=replays)
    check_number("eps", eps)
    if replays < 1:
        raise ValueError(f"replays must be at least 1, got {replays}")
    size = eps if step_size is None else step_size
    check_number("step_size", size)
    carried: list[Tensor] = []  # the perturbation; then, within a step, the images that carry it

    def perturb(model: nn.Module, batch: TrainingBatch) -> Tensor:
        x = batch.x
        if batch.progress.first:
            carried.clear()
        if not carried or carried[0].shape[1:] != x.shape[1:] or len(carried[0]) < len(x):
            fresh = torch.zeros_like(x)
            if carried and carried[0].shape[1:] == x.shape[1:]:
                fresh[: len(carried[0])] = carried[0]
            carried[:] = [fresh]
        # Clipped outside of the graph: clamp has no gradient at black and white pixels.
        box = Region.around(x, norm="linf", eps=eps, bounds=bounds, outside=outside)
        moved = box.boxed(x + carried[0][: len(x)]).requires_grad_()
        carried[1:] = [moved]
        return moved

    def after_backward() -> None:
        delta, moved = carried
        if moved.grad is None:
            raise ValueError("free training needs a model that is differentiable in its images")
        # Of a scaled loss whose gradient overflowed (no step is taken then), 0 is no direction.
        step = delta[: len(moved)] + size * moved.grad.nan_to_num().sign()
        delta[: len(moved)] = step.clamp(-eps, eps)
        del carried[1:]

    return Method(
        "free",
        perturb,
        cross_entropy,
        eps,
        replays=replays,
        after_backward=after_backward,
        soft_labels=True,
        any_layout=True,
        stateful=True,
    )
