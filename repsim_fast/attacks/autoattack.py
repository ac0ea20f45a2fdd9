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
from .region import Outside, Region, check_norm, check_outside

STANDARD = ("apgd-ce", "apgd-t", "fab-t", "square")
RANDOMISED = ("apgd-ce", "apgd-dlr")
_PACKAGE = {"fab-t", "square"}
_STAGES = (*STANDARD, "apgd-dlr")
# Of the version "standard": untargeted runs and classes tried by APGD, by norm; classes of FAB.
_RESTARTS = {"l1": 5}
_TARGETS = {"l1": 5}
_ELSE_RESTARTS, _ELSE_TARGETS = 1, 9
# The targeted DLR loss divides by a difference to the mean of third and fourth logit.
_DLR_CLASSES = 4
_PACKAGE_NORMS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
# FAB minimises the norm of its perturbation: it may end outside the ball, by more than rounding.
_ROUNDING = 1e-5
_BOX = (0.0, 1.0)


class AutoAttack:
    """Worst case of four attacks, each on the samples that withstood the ones before.

    "apgd-ce" and "apgd-t" are this package's; "fab-t" (Fast Adaptive Boundary) and "square" (a
    black-box attack, which also works where gradients are masked) come from the pyautoattack or
    autoattack package. All four with the defaults are the authors' version "standard" of each
    norm; with ``draws`` 20 it is their version "rand", for networks that draw random numbers.

    Args:
        eps: Radius, a number.
        norm: "linf", "l2" or "l1".
        stages: Which attacks, in order; default all four, or with several ``draws`` "apgd-ce" and
            "apgd-dlr".
        steps: Steps of APGD and FAB.
        n_targets: Wrong classes tried by the targeted attacks; default 9, of "apgd-t" in L1 5.
        restarts: Of "apgd-ce" and "apgd-dlr"; default 1, in L1 without ``draws`` 5.
        targeted_loss: Of "apgd-t", "dlr" or "ce"; default "dlr", which needs 4 classes, and "ce"
            for fewer.
        draws: Of the APGD stages and of what counts as fooled, as in ``PGD``.
        queries: Forward passes of the square attack.
        outside: As in ``PGD``. "fab-t" and "square", which know images in [0, 1] only, begin at the
            images clipped to it, and what they find is projected into the region, where it may fool
            no longer: of such images they are weaker.
        execution: Of the APGD stages, as in ``APGD``; what counts as fooled is decided by the
            model as it is.
        seed: Int or ``torch.Generator``; the stream advances with every call.

    Raises:
        ImportError: A stage needs a package that is not installed.
        ValueError: As ``APGD``, on call.
    """

    def __init__(
        self,
        eps: float,
        *,
        norm: str = "linf",
        stages: Sequence[str] | None = None,
        steps: int = 100,
        n_targets: int | None = None,
        restarts: int | None = None,
        targeted_loss: str | None = None,
        queries: int = 5000,
        draws: int = 1,
        outside: Outside = "error",
        execution: ExecutionLike = "exact",
        seed: int | torch.Generator | None = None,
    ) -> None:
        if stages is None:
            stages = STANDARD if draws == 1 else RANDOMISED
        if not stages or not {*stages} <= {*_STAGES}:
            raise ValueError(f"stages must be some of {_STAGES}, got {tuple(stages)}")
        for name, value in (("n_targets", n_targets), ("restarts", restarts), ("draws", draws)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if targeted_loss not in (None, "dlr", "ce"):
            raise ValueError(f"targeted_loss must be 'dlr' or 'ce', got {targeted_loss!r}")
        check_norm(norm)
        check_outside(outside, cuda_graph=False)
        if _PACKAGE & {*stages}:
            _package()  # missing, it is said before hours of work
        self.eps = eps
        self.norm = norm
        self.stages = tuple(stages)
        self.steps = steps
        self.n_targets = n_targets
        standard = _ELSE_RESTARTS if draws > 1 else _RESTARTS.get(norm, _ELSE_RESTARTS)
        self.restarts = standard if restarts is None else restarts
        self.targeted_loss = targeted_loss
        self.draws = draws
        self.queries = queries
        self.outside: Outside = outside
        self.execution = resolve(execution)
        self._stream = Stream(seed)

    def __repr__(self) -> str:
        return f"AutoAttack(eps={self.eps}, norm={self.norm!r}, stages={self.stages})"

    @torch.no_grad()
    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` (N, ...) with labels ``y`` (N,)."""
        package = _package() if _PACKAGE & set(self.stages) else None
        with borrow(model, mode="eval", device=images_device(x), seed=self._stream.seed()):
            region = Region.around(
                x, norm=self.norm, eps=self.eps, bounds=_BOX, outside=self.outside
            )
            begin = region.boxed(region.x)
            y = check_labels(y, x)
            objective = InputGradient(model, losses.margin, draws=self.draws)
            found = BestAdversarial(begin, targeted=False)
            every = torch.arange(len(y), device=y.device)
            logits = objective.logits(begin)
            check_logits(logits, y)
            found.offer(every, begin, logits, y, objective.value(logits, y))
            for stage in self.stages:
                rows = every[~found.fooled]
                if not len(rows):
                    break
                # Packages know tensors of one precision, as this gives them of any model.
                of_package = objective.logits if stage in _PACKAGE else model
                attack = self._attack(stage, of_package, package, logits.shape[1])
                with torch.enable_grad():
                    candidates = attack(region.x[rows], y[rows]).detach()
                part = region.rows(rows)
                if self.outside != "error" and stage in _PACKAGE:
                    candidates = part.project(candidates)
                inside = _inside(candidates, part)
                rows, candidates = rows[inside], candidates[inside]
                if len(rows):
                    answer = objective.logits(candidates)
                    found.offer(rows, candidates, answer, y[rows], objective.value(answer, y[rows]))
        return found.images

    def _attack(self, stage: str, model: Model, package: Any, n_classes: int) -> Any:
        """The attack of a stage as a callable (x, y) -> x_adv."""
        common: dict[str, Any] = {
            "norm": self.norm,
            "steps": self.steps,
            "draws": self.draws,
            "outside": self.outside,
            "execution": self.execution,
        }
        seed = self._stream.seed() % 2**31
        if stage == "apgd-t":
            n_targets = self.n_targets or _TARGETS.get(self.norm, _ELSE_TARGETS)
            loss = self.targeted_loss or ("dlr" if n_classes >= _DLR_CLASSES else "ce")
            targeted = APGDTargeted(self.eps, n_targets=n_targets, loss=loss, seed=seed, **common)
            return lambda x, y: targeted(model, x, y)
        if stage.startswith("apgd"):
            loss = stage.removeprefix("apgd-")
            apgd = APGD(self.eps, loss=loss, restarts=self.restarts, seed=seed, **common)
            return lambda x, y: apgd(model, x, y)
        options = {"eps": self.eps, "norm": _PACKAGE_NORMS[self.norm], "seed": seed}

        def run(x: Tensor, y: Tensor) -> Any:
            x = x.clamp(*_BOX)
            if stage == "fab-t":
                fab = package.fab_pt.FABAttack_PT(
                    model,
                    n_iter=self.steps,
                    targeted=True,
                    n_target_classes=min(self.n_targets or _ELSE_TARGETS, n_classes - 1),
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
    """Which points lie in their region, up to rounding, (N,) bool.

    Of points of the ball that were clipped to the box only the box tells: they may be further than
    eps from an image outside.
    """
    p = {"linf": torch.inf, "l2": 2.0, "l1": 1.0}[region.norm]
    length = torch.linalg.vector_norm((adv - region.x).flatten(1), p, dim=1)
    boxed: Tensor = ((adv >= region.low) & (adv <= region.high)).flatten(1).all(1)
    if region.outside == "clip":
        return boxed
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
        "or leave them out: stages=('apgd-ce', 'apgd-t') in Python, --attack apgd,apgd-t in the "
        "terminal"
    )
