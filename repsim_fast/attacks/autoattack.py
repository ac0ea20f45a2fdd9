"""AutoAttack (Croce & Hein, 2020): the standard evaluation, with our APGD inside."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.batch_checks import check_labels, check_logits, images_device
from repsim_fast._core.borrow import Model, borrow
from repsim_fast._core.randomness import Stream

from . import losses
from .apgd import APGD, APGDTargeted
from .best_adversarial import BestAdversarial
from .execution.options import ExecutionLike, resolve
from .objective import InputGradient
from .region import Region

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
_PACKAGE_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# FAB minimises the norm of its perturbation: it may end outside the ball, by more than rounding.
_ROUNDING = 1e-5


class AutoAttack:
    """Worst case of four attacks, each on the samples that withstood the ones before.

    "apgd-ce" and "apgd-t" are this package's; "fab-t" (Fast Adaptive Boundary) and "square" (a
    black-box attack, which also works where gradients are masked) come from the pyautoattack or
    autoattack package. With all four this is the version "standard" of the paper.

    Args:
        eps: Radius, a number.
        norm: "linf", "l2" or "l1".
        stages: Which attacks, in order.
        steps: Steps of APGD and FAB.
        n_targets: Wrong classes tried by the targeted attacks.
        queries: Forward passes of the square attack.
        execution: Of the APGD stages, as in ``APGD``; what counts as fooled is decided by the
            model as it is.
        seed: Int or ``torch.Generator``; the stream advances with every call.

    Raises (on call):
        ImportError: A stage needs a package that is not installed.
        ValueError: As ``APGD``.
    """

    def __init__(
        self,
        eps: float,
        *,
        norm: str = "linf",
        stages: Sequence[str] = STANDARD,
        steps: int = 100,
        n_targets: int = 9,
        queries: int = 5000,
        execution: ExecutionLike = "exact",
        seed: int | torch.Generator | None = None,
    ) -> None:
        unknown = [stage for stage in stages if stage not in (*STANDARD, "apgd-dlr")]
        if unknown or not stages:
            raise ValueError(
                f"stages must be some of {(*STANDARD, 'apgd-dlr')}, got {tuple(stages)}"
            )
        self.eps = eps
        self.norm = norm
        self.stages = tuple(stages)
        self.steps = steps
        self.n_targets = n_targets
        self.queries = queries
        self.execution = resolve(execution)
        self._stream = Stream(seed)

    def __repr__(self) -> str:
        return f"AutoAttack(eps={self.eps}, norm={self.norm!r}, stages={self.stages})"

    @torch.no_grad()
    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` (N, ...) with labels ``y`` (N,)."""
        package = _package() if {"fab-t", "square"} & set(self.stages) else None
        with borrow(model, mode="eval", device=images_device(x), seed=self._stream.seed()):
            region = Region.around(x, norm=self.norm, eps=self.eps, bounds=(0.0, 1.0))
            y = check_labels(y, x)
            objective = InputGradient(model, losses.margin)
            found = BestAdversarial(region.x, targeted=False)
            every = torch.arange(len(y), device=y.device)
            logits = objective.logits(region.x)
            check_logits(logits, y)
            found.offer(every, region.x, logits, y, objective.value(logits, y))
            for stage in self.stages:
                rows = every[~found.fooled]
                if not len(rows):
                    break
                n_targets = min(self.n_targets, logits.shape[1] - 1)
                attack = self._attack(stage, model, package, n_targets)
                with torch.enable_grad():
                    candidates = attack(region.x[rows], y[rows]).detach()
                inside = _inside(candidates, region.rows(rows))
                rows, candidates = rows[inside], candidates[inside]
                if len(rows):
                    answer = objective.logits(candidates)
                    found.offer(rows, candidates, answer, y[rows], objective.value(answer, y[rows]))
        return found.images

    def _attack(self, stage: str, model: Model, package: Any, n_targets: int) -> Any:
        """The attack of a stage as a callable (x, y) -> x_adv."""
        common: dict[str, Any] = {
            "norm": self.norm,
            "steps": self.steps,
            "execution": self.execution,
        }
        seed = self._stream.seed() % 2**31
        if stage == "apgd-t":
            targeted = APGDTargeted(self.eps, n_targets=n_targets, seed=seed, **common)
            return lambda x, y: targeted(model, x, y)
        if stage.startswith("apgd"):
            apgd = APGD(self.eps, loss=stage.removeprefix("apgd-"), seed=seed, **common)
            return lambda x, y: apgd(model, x, y)
        options = {"eps": self.eps, "norm": _PACKAGE_NORMS[self.norm], "seed": seed}

        def run(x: Tensor, y: Tensor) -> Any:
            if stage == "fab-t":
                fab = package.fab_pt.FABAttack_PT(
                    model,
                    n_iter=self.steps,
                    targeted=True,
                    n_target_classes=n_targets,
                    device=x.device,
                    **options,
                )
                return fab.perturb(x, y)
            square = package.square.SquareAttack(
                model, n_queries=self.queries, resc_schedule=False, device=x.device, **options
            )
            return square.perturb(x, y)

        return run


def _inside(adv: Tensor, region: Region) -> Tensor:
    """Which points lie in their region, up to rounding, (N,) bool."""
    p = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}[region.norm]
    length = torch.linalg.vector_norm((adv - region.x).flatten(1), p, dim=1)
    boxed = ((adv >= region.low) & (adv <= region.high)).flatten(1).all(1)
    near: Tensor = length <= region.eps * (1.0 + _ROUNDING)
    return boxed & near


def _package() -> ModuleType:
    for name in ("pyautoattack", "autoattack"):
        try:
            package = importlib.import_module(name)
            for part in ("fab_pt", "square"):
                importlib.import_module(f"{name}.{part}")
        except ModuleNotFoundError:
            continue
        return package
    raise ImportError(
        "the stages 'fab-t' and 'square' need the pyautoattack package: pip install pyautoattack, "
        "or choose stages=('apgd-ce', 'apgd-t')"
    )
