"""What a training method is: how it perturbs a batch, and the loss it then minimises."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial, wraps
from typing import Any, ParamSpec

import torch
from torch import Tensor, nn

from repsim_fast._core.borrow import call
from repsim_fast._core.model_state import parameters_frozen
from repsim_fast.attacks.execution.options import EXACT


@dataclass(frozen=True)
class Progress:
    """How far a training is, at one optimizer step.

    Attributes:
        epoch: Counted from 0.
        epochs: Of the whole training.
        fraction: What is done of the training, in [0, 1).
        first: Whether it is the first step of its epoch, also of one that is begun again: what a
            method carries from batch to batch is to be forgotten then.
        batch: Of the epoch, counted from 0.
    """

    epoch: int = 0
    epochs: int = 1
    fraction: float = 0.0
    first: bool = False
    batch: int = 0


@dataclass(frozen=True)
class TrainingBatch:
    """A batch as the trainer hands it out.

    Attributes:
        x: Images (N, C, H, W) in [0, 1], augmented.
        y: Labels (N,), of soft labels the most probable classes: what attacks go by.
        generator: CPU generator for everything random about this batch.
        progress: How far the training is, for what changes in its course.
        soft: Probabilities (N, n_classes) in place of the labels, None without.
        label_smoothing: Share of the label that is spread evenly over all classes.
    """

    x: Tensor
    y: Tensor
    generator: torch.Generator
    progress: Progress = Progress()
    soft: Tensor | None = None
    label_smoothing: float = 0.0

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """Mean cross-entropy with the batch's labels, soft and smoothed where they are."""
        targets = self.y if self.soft is None else self.soft.to(logits.dtype)
        return nn.functional.cross_entropy(logits, targets, label_smoothing=self.label_smoothing)


Perturb = Callable[[nn.Module, TrainingBatch], Tensor]
"""(model, batch) -> images to train on, (N, C, H, W)."""

BatchLoss = Callable[[nn.Module, TrainingBatch, Tensor], tuple[Tensor, Tensor]]
"""(model, batch, perturbed images) -> (mean loss, logits that the running accuracy counts)."""


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Method:
    """A training method: an inner step that makes the inputs, an outer loss on them.

    The two are apart so that options such as weight perturbation can act between them.

    Attributes:
        name: Shown in logs.
        perturb: The inner step; the model is in training mode and must be left as it was.
        loss: The outer loss.
        eps: Radius of the perturbation, None without one.
        replays: Optimizer steps on each batch.
        after_backward: Called after each backward pass.
        soft_labels: Whether the loss takes soft and smoothed labels, by ``batch.cross_entropy``.
        any_layout: Whether its code takes images and gradients of any strides, so that the network
            may have its channels last.
        stateful: Whether it carries something from step to step.
        settings: What it was made with, by name: with ``name``, ``eps`` and ``replays`` what a
            resumed training of a method that was built already is held against. Of methods of your
            own give here what tells one from another.
    """

    name: str
    perturb: Perturb
    loss: BatchLoss
    eps: float | None = None
    replays: int = 1
    after_backward: Callable[[], None] = _nothing
    soft_labels: bool = False
    any_layout: bool = False
    stateful: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict, hash=False)


P = ParamSpec("P")


def noted(factory: Callable[P, Method]) -> Callable[P, Method]:
    """A factory whose methods have its arguments as ``settings``."""
    signature = inspect.signature(factory)
    several = [p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD]

    @wraps(factory)
    def make(*args: P.args, **kwargs: P.kwargs) -> Method:
        method = factory(*args, **kwargs)
        given = signature.bind(*args, **kwargs)
        given.apply_defaults()
        settings = dict(given.arguments)
        for name in several:
            settings |= settings.pop(name)
        return replace(method, settings=settings)

    return make


def perturbed_by(method: Method, model: nn.Module, batch: TrainingBatch) -> Tensor:
    """What ``perturb`` makes of a batch.

    Raises:
        TypeError: No tensor.
    """
    found = method.perturb(model, batch)
    if not isinstance(found, Tensor):
        raise TypeError(
            f"method {method.name!r}: perturb must return images, a tensor, got "
            f"{type(found).__name__}"
        )
    return found


def loss_of(
    method: Method, model: nn.Module, batch: TrainingBatch, perturbed: Tensor
) -> tuple[Tensor, Tensor]:
    """The method's loss and logits.

    Raises:
        TypeError: No pair of tensors.
        ValueError: A loss that is no single number, or other logits than a row for each image of
            the batch.
    """
    found = method.loss(model, batch, perturbed)
    whose, n = f"method {method.name!r}: loss", len(batch.x)
    pair = found if isinstance(found, (tuple, list)) else (found,)
    if len(pair) != 2 or not all(isinstance(part, Tensor) for part in pair):
        got = ", ".join(type(part).__name__ for part in pair)
        raise TypeError(f"{whose} must return two tensors, the mean loss and logits, got {got}")
    loss, logits = pair
    if loss.ndim != 0 or logits.ndim != 2 or len(logits) != n:
        raise ValueError(
            f"{whose} must return a mean loss of shape () and logits of shape ({n}, n_classes), "
            f"got {tuple(loss.shape)} and {tuple(logits.shape)}"
        )
    return loss, logits


def on_examples(
    attack: Callable[..., Any], eps: float, *, update_statistics: bool = False, **options: Any
) -> Perturb:
    """Inner step that builds ``attack(eps, **options)`` anew for each batch's random numbers.

    Bad settings fail here and not in the first batch.

    Args:
        attack: Factory of the attack.
        eps: Radius in image units.
        update_statistics: Running averages of batch norms take in the attack's forward passes, too,
            as in code that attacks the model in training mode; needs ``model_mode="train"``.
        options: Of the attack.

    Raises:
        ValueError: Settings out of range, a seed, or statistics of a model that is not in training
            mode.
    """
    if "seed" in options:
        raise ValueError(
            "seed: a method draws from each batch's random numbers, which follow from that of "
            f"train(seed=...), got {options['seed']!r} of its own"
        )
    built = attack(eps, **options)
    if update_statistics and (built.model_mode != "train" or built.execution != EXACT):
        raise ValueError(
            'update_statistics needs model_mode="train" and execution="exact", got '
            f"model_mode={built.model_mode!r} and execution={built.execution!r}"
        )

    def perturb(model: nn.Module, batch: TrainingBatch) -> Tensor:
        attacked = attack(eps, seed=batch.generator, **options)
        if not update_statistics:
            examples: Tensor = attacked(model, batch.x, batch.y)
            return examples
        with parameters_frozen([model]):  # a function has no buffers that would be put back
            examples = attacked(partial(call, model), batch.x, batch.y)
        return examples

    return perturb


def clean(model: nn.Module, batch: TrainingBatch) -> Tensor:
    """Perturb nothing."""
    return batch.x


def cross_entropy(
    model: nn.Module, batch: TrainingBatch, perturbed: Tensor
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of the perturbed images."""
    logits = call(model, perturbed)
    return batch.cross_entropy(logits), logits
