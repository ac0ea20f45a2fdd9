"""TRADES and MART: losses that weigh clean against adversarial predictions."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, nll_loss

from repsim_fast._core.borrow import ModelMode, borrow, call
from repsim_fast._core.checks import check_number
from repsim_fast._core.randomness import Stream
from repsim_fast.attacks.execution.options import resolve
from repsim_fast.attacks.losses import divergence, divergence_of
from repsim_fast.attacks.pgd import NearbyStartPGD

from .base import Method, TrainingBatch, noted, on_examples

# Keeps the logarithm of MART's 1 - p finite, as published.
_MARGIN_FLOOR = 1e-4


@noted
def trades(
    eps: float = 8 / 255,
    *,
    beta: float = 6.0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Any,
) -> Method:
    """TRADES (Zhang et al., 2019): CE(f(x), y) + beta KL(f(x) || f(x')).

    x' maximises the KL divergence in the ball, with the model in eval mode unless ``model_mode``
    says otherwise; the clean predictions of that inner loop, in the same mode, are computed once,
    not in each step.

    Args:
        eps: Radius in image units; published 0.031.
        beta: Weight of robustness against accuracy.
        steps: Attack steps.
        step_size: Default eps / 4; published 0.007 and 0.003.
        options: Further settings of ``attacks.PGD``, such as ``norm``; the loss is the divergence,
            of the whole batch, so no ``early_stop``.

    Raises:
        ValueError: A setting out of range, or one that does not go with the divergence.
    """
    check_number("beta", beta)
    if "loss" in options:
        raise ValueError(f"loss: that of trades is the divergence, got {options['loss']!r}")
    if options.get("early_stop"):
        raise ValueError(
            "early_stop: no early_stop for trades, whose inner loss holds the clean predictions of "
            "a whole batch, got True"
        )
    step_size = eps / 4 if step_size is None else step_size
    settings = {"steps": steps, "step_size": step_size, **options}
    on_examples(NearbyStartPGD, eps, **settings)  # bad settings fail here
    if resolve(options.get("execution", "exact")).cuda_graph:
        raise ValueError(
            "execution: no cuda_graph for trades, whose inner loss holds each batch's own clean "
            "predictions: it would be captured anew for every batch"
        )

    mode: ModelMode = options.get("model_mode", "eval")

    def perturb(model: nn.Module, batch: TrainingBatch) -> Tensor:
        # In training mode a model draws numbers, such as dropout's, which are to be other ones in
        # each batch.
        seed = 0 if mode == "eval" else Stream(batch.generator).seed()
        with borrow(model, mode=mode, device=batch.x.device, seed=seed), torch.no_grad():
            loss = divergence(call(model, batch.x))
        attack = on_examples(NearbyStartPGD, eps, loss=loss, **settings)
        return attack(model, batch)

    def loss(model: nn.Module, batch: TrainingBatch, perturbed: Tensor) -> tuple[Tensor, Tensor]:
        logits = call(model, batch.x)
        attacked = call(model, perturbed)
        gap = divergence_of(logits.log_softmax(1), attacked.log_softmax(1))
        return batch.cross_entropy(logits) + beta * gap.mean(), attacked

    return Method("trades", perturb, loss, eps, soft_labels=True, any_layout=True)


@noted
def mart(
    eps: float = 8 / 255,
    *,
    beta: float = 5.0,
    steps: int = 10,
    step_size: float | None = None,
    **options: Any,
) -> Method:
    """MART (Wang et al., 2020): BCE(f(x'), y) + beta KL(f(x) || f(x')) (1 - p_y(x)).

    BCE adds -log(1 - max_{k != y} p_k(x')) to the cross-entropy; x' maximises the cross-entropy.
    Labels are of one class each, neither soft nor smoothed.

    Args:
        eps: Radius in image units.
        beta: Weight of the divergence.
        steps: Attack steps.
        step_size: Default eps / 4.
        options: Further settings of ``attacks.PGD``, such as ``norm``.
    """
    check_number("beta", beta)
    step_size = eps / 4 if step_size is None else step_size
    perturb = on_examples(NearbyStartPGD, eps, steps=steps, step_size=step_size, **options)

    def loss(model: nn.Module, batch: TrainingBatch, perturbed: Tensor) -> tuple[Tensor, Tensor]:
        clean = call(model, batch.x).log_softmax(1)
        logits = call(model, perturbed)
        attacked = logits.softmax(1)
        index = batch.y.unsqueeze(1)
        rival = attacked.scatter(1, index, -1.0).argmax(1)
        against = torch.log(1.0 + _MARGIN_FLOOR - attacked)
        boosted = cross_entropy(logits, batch.y) + nll_loss(against, rival)
        gap = divergence_of(clean, logits.log_softmax(1))
        missing = -clean.gather(1, index).squeeze(1).expm1()
        return boosted + beta * (gap * missing).mean(), logits

    return Method("mart", perturb, loss, eps, any_layout=True)
