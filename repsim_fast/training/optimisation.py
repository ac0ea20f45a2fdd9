"""How the weights move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Literal

import torch

from repsim_fast._core.checks import check_autocast, check_choice, check_number, check_whole
from repsim_fast._core.names import FROZEN_PARTS, OPTIMIZERS, FrozenPart

from .optimizers import OptimizerFactory
from .regularisers import Regulariser

# Options that only some optimizers have.
_OWN = {
    "nesterov": ("sgd", "sam"),
    "momentum": ("sgd", "sam", "adam", "adamw"),
    "beta2": ("adam", "adamw"),
    "rho": ("sam",),
}


@dataclass(frozen=True)
class Optimisation:
    """How the weights move: the optimizer, what it descends and in which precision.

    Attributes:
        optimizer: "sgd" (default, with momentum); "adam" and "adamw" (Kingma & Ba, 2015; Loshchilov
            & Hutter, 2019), which want an ``lr`` near 1e-3; "sam", SGD with the gradient at the
            worst weights within ``rho`` (Foret et al., 2021), two backward passes a step; or a
            callable that makes a ``torch.optim.Optimizer`` of parameter groups, each with
            "params", "lr" and "weight_decay", such as
            ``functools.partial(torch.optim.RMSprop, alpha=0.9)``. What the groups have counts: an
            lr or weight_decay given beside them, which they would override, is an error. The
            schedule multiplies each group's own lr.
        momentum: Of SGD; of Adam the decay of its first moment, beta_1. In [0, 1).
        nesterov: Nesterov's momentum, of SGD.
        beta2: Decay of Adam's second moment, in [0, 1).
        rho: Radius of "sam", the L2 norm of the perturbation of all weights together.
        weight_decay: L2 penalty, of "adamw" decoupled from the gradient.
        decay_norms_and_biases: Also on the parameters of normalisation layers, on biases and on
            other vectors; False decays matrices and kernels only.
        max_grad_norm: Gradients whose L2 norm, over all parameters, is larger are scaled down to
            it; None for no clipping.
        freeze_batch_norm: "statistics" (batch norms normalise by their running averages, which
            stay), "affine" (their weights and biases stay) or "both", for fine-tuning.
        label_smoothing: Share of each label, in [0, 1), that the method's cross-entropy spreads
            evenly over all classes; attacks go by the label.
        regularisers: Penalties on activations, added to the method's loss.
        awp: Relative size of the adversarial weight perturbation, 0 for none. Not with "sam", which
            perturbs the weights itself.
        awp_warmup: Epochs before it begins.
        ema: Decay of an exponential moving average of the weights. The average is what is
            evaluated, saved for use and left in the model at the end.
        autocast: torch.bfloat16 or torch.float16 for forward passes (float16 with loss scaling);
            "auto" is bfloat16 where processor or GPU multiply it natively, else none, as the log
            then says.

    Raises:
        ValueError: A value out of its range, or an option that the optimizer does not have.
        TypeError: An optimizer that is neither a name nor callable, a value that is no number.
    """

    optimizer: str | OptimizerFactory = "sgd"
    momentum: float = 0.9
    nesterov: bool = False
    beta2: float = 0.999
    rho: float = 0.05
    weight_decay: float = 5e-4
    decay_norms_and_biases: bool = True
    max_grad_norm: float | None = None
    freeze_batch_norm: FrozenPart | None = None
    label_smoothing: float = 0.0
    regularisers: Sequence[Regulariser] = ()
    awp: float = 0.0
    awp_warmup: int = 0
    ema: float | None = None
    autocast: torch.dtype | Literal["auto"] | None = None

    def __post_init__(self) -> None:
        self._check_optimizer()
        for name in ("momentum", "beta2", "label_smoothing"):
            if not 0 <= (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} must lie in [0, 1), got {value}")
        check_whole(awp_warmup=self.awp_warmup)
        for name in ("weight_decay", "awp", "awp_warmup"):
            check_number(name, getattr(self, name))
        for name in ("rho", "max_grad_norm"):
            if (value := getattr(self, name)) is not None:
                check_number(name, value, positive=True)
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs momentum, got momentum=0")
        if self.awp and self.optimizer == "sam":
            raise ValueError("awp: 'sam' perturbs the weights itself: choose one of them")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema must lie in (0, 1), got {self.ema}")
        if self.freeze_batch_norm is not None:
            check_choice("freeze_batch_norm", self.freeze_batch_norm, FROZEN_PARTS)
        if not isinstance(self.regularisers, Sequence) or not all(
            callable(getattr(one, "observe", None)) for one in self.regularisers
        ):
            raise TypeError(
                "regularisers must be a sequence of penalties, such as "
                f"(SelectivityRegulariser(-1.0),), got {self.regularisers!r}"
            )
        check_autocast(None if self.autocast == "auto" else self.autocast)

    def _check_optimizer(self) -> None:
        if isinstance(self.optimizer, str):
            check_choice("optimizer", self.optimizer, OPTIMIZERS)
        elif not callable(self.optimizer):
            raise TypeError(
                f"optimizer must be one of {', '.join(OPTIMIZERS)} or a callable that makes one of "
                f"parameter groups, got {type(self.optimizer).__name__}"
            )
        usual = {field.name: field.default for field in fields(self)}
        for name, owners in _OWN.items():
            if getattr(self, name) != usual[name] and self.optimizer not in owners:
                raise ValueError(
                    f"{name}: an option of optimizer {', '.join(map(repr, owners))}, got it beside "
                    f"{self.optimizer!r}"
                )
