"""What all epochs of a training go by, checked before the first one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.batch_checks import check_logits
from repsim_fast._core.borrow import borrow
from repsim_fast._core.checks import check_number, check_seed, check_whole
from repsim_fast._core.model_state import unwrap
from repsim_fast.attacks.losses import margin
from repsim_fast.attacks.objective import InputGradient
from repsim_fast.data.augmentation import Augment
from repsim_fast.data.labelled import LabelledImages

from . import methods, optimizers
from .awp import moves
from .methods import Method
from .optimisation import Optimisation
from .schedules import Schedule
from .settings import Evaluation
from .written import in_full, written


@dataclass(frozen=True)
class Plan:
    """Method, length, rate and random numbers.

    Raises:
        TypeError: Counts or a seed that are not whole numbers, a rate that is no number.
        ValueError: Less than one epoch or image a batch, a rate that is not positive and finite, or
            a seed below 0 or beyond 63 bits.
    """

    method: Method
    epochs: int
    batch_size: int
    lr: float
    schedule: Schedule
    augment: Augment
    seed: int

    def __post_init__(self) -> None:
        check_whole(epochs=self.epochs, batch_size=self.batch_size)
        # An int of Python's, which holds the products below.
        object.__setattr__(self, "seed", check_seed(self.seed))
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(
                f"epochs and batch_size must be at least 1, got {self.epochs}, {self.batch_size}"
            )
        check_number("lr", self.lr, positive=True)

    def stream(self, epoch: int, number: int) -> int:
        """Seed of one of an epoch's random streams: 0 for the order, 1 + rank for the noise.

        Every random number of an epoch follows from these, so a resumed training needs no
        generator state. Odd multipliers (Knuth's, and the golden ratio's) keep neighbours apart.
        """
        return (self.seed * 2654435761 + epoch * 40503 + number * 0x9E3779B97F4A7C15) % 2**63


def described(
    plan: Plan,
    how: Optimisation,
    optimizer: torch.optim.Optimizer,
    data: LabelledImages,
    method_options: Mapping[str, Any] | None,
    schedule: str | Schedule,
    augment: str | Augment | None,
    evaluation: Evaluation,
) -> dict[str, Any]:
    """What a resumed training must have in common with this one, as JSON holds it."""
    options = [f"{name}={written(value)}" for name, value in (method_options or {}).items()]
    return {
        "method": ", ".join([plan.method.name, *options]),
        "epochs": plan.epochs,
        "batch_size": plan.batch_size,
        "lr": plan.lr,
        "schedule": schedule if isinstance(schedule, str) else "custom",
        "augment": augment if isinstance(augment, str | None) else "custom",
        **optimizers.described(optimizer, plan.lr),
        "rho": how.rho if how.optimizer == "sam" else None,
        "freeze_batch_norm": how.freeze_batch_norm,
        "label_smoothing": how.label_smoothing,
        "max_grad_norm": how.max_grad_norm,
        "regularisers": [written(regulariser) for regulariser in how.regularisers],
        "awp": [how.awp, how.awp_warmup],
        "ema": how.ema,
        "autocast": str(how.autocast),
        "seed": plan.seed,
        "data": data.description,
        "evaluation": evaluation.described(),
    }


def described_method(method: str | Method) -> str | None:
    """What a method that was built already has in common with that of a resumed training; None of a
    name, whose options ``described`` has."""
    if isinstance(method, str):
        return None
    settings = {"replays": method.replays, **dict(sorted(method.settings.items()))}
    return in_full({"eps": method.eps, **settings})


def build_method(method: str | Method, options: Mapping[str, Any] | None) -> Method:
    """The method itself.

    Raises:
        TypeError: Neither a name nor a method.
        ValueError: Unknown name or option, or options beside a method that is built already.
    """
    if isinstance(method, str):
        return methods.build(method, **(options or {}))
    if not isinstance(method, Method):
        raise TypeError(f"method must be a name or a Method, got {type(method).__name__}")
    if options:
        raise ValueError("method_options go with a method given by name")
    return method


def check_smoothing(method: Method, label_smoothing: float) -> None:
    """A method whose loss takes smoothed labels, where they are.

    Raises:
        ValueError: It does not.
    """
    if label_smoothing and not method.soft_labels:
        raise ValueError(
            f"label_smoothing: method {method.name!r} needs labels of one class each, got "
            f"{label_smoothing}"
        )


def check_trainable(model: nn.Module, autocast: torch.dtype | str | None) -> None:
    """A module with weights in dtypes that train without, or with, autocast's loss scaling.

    Raises:
        TypeError: No module.
        ValueError: Nothing to train, or not in its dtype.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    trained = {p.dtype: name for name, p in model.named_parameters() if p.requires_grad}
    if not trained:
        raise ValueError("model must have a parameter to train, got none that requires a gradient")
    if torch.float16 in trained:
        raise ValueError(
            "model: expected weights in float32, float64 or bfloat16, got float16 in "
            f"{trained[torch.float16]!r}, whose gradients underflow: keep the weights in float32 "
            "and give autocast=torch.float16"
        )
    if torch.bfloat16 in trained and autocast == torch.float16:
        raise ValueError(
            "autocast: expected torch.bfloat16 or None for weights in bfloat16 (as in "
            f"{trained[torch.bfloat16]!r}), got torch.float16"
        )


def check_perturbable(model: nn.Module, awp: float) -> None:
    """A model that has weights for adversarial weight perturbation to move, where it is asked for.

    Raises:
        ValueError: It trains biases, norms and other vectors alone.
    """
    if awp and not any(map(moves, model.parameters())):
        raise ValueError(
            "awp: perturbs matrices and kernels, got a model of which only vectors are trained: "
            "give awp=0"
        )


def check_holdable(model: nn.Module) -> None:
    """A model whose state dict a checkpoint, and an average, can hold.

    Raises:
        TypeError: It has something that is no tensor (of ``get_extra_state``).
    """
    for name, value in unwrap(model).state_dict().items():
        if not isinstance(value, Tensor):
            raise TypeError(
                f"model: a checkpoint or average must be of tensors, got {type(value).__name__} in "
                f"{name!r} of its state dict"
            )


def check_classes(model: nn.Module, image: Tensor, span: Tensor) -> int:
    """Number of the model's classes; that its logits are logits, and the labels among them.

    Before the first epoch rather than in it.

    Args:
        model: The model to train.
        image: The first image, (1, ...).
        span: The smallest and largest label.

    Raises:
        ValueError: Something else.
    """
    with borrow(model, device=image.device, seed=0), torch.no_grad():
        logits = InputGradient(model, margin).logits(image)
        check_logits(logits.expand(2, -1), span)
    return logits.shape[1]
