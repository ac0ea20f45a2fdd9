"""Projected gradient descent (Madry et al., 2018)."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor

from repsim_fast._core.batch_checks import check_labels, images_device
from repsim_fast._core.borrow import Model, ModelMode, borrow
from repsim_fast._core.checks import check_autocast, check_number, check_whole
from repsim_fast._core.randomness import Stream
from repsim_fast.ops import Bounds, Order, Scalar
from repsim_fast.ops.directions import l1_normalise

from . import losses
from .best_adversarial import BestAdversarial
from .execution.compiled_form import prepare
from .execution.graphed_steps import Graphs, memory_of, replay
from .execution.options import ExecutionLike, ExecutionReport, resolve
from .losses import Loss
from .objective import InputGradient
from .problem import Problem
from .region import Outside, Region, check_norm, check_outside, check_step

# Together the steps cover the radius 2.5 times, so that the far side of the ball is in reach of
# any random start (Madry et al., 2018, section 5).
_COVER = 2.5
# Of the start of TRADES' inner loop, as published.
_NEARBY = 1e-3


class PGD:
    """Maximise a loss inside a ball around each image: a callable (model, x, y) -> x_adv.

    x_{t+1} = P(x_t + step_size * d_t), where d_t is the loss's steepest ascent direction in the
    norm (for L1 a sparse one) and P the projection on ball and box. The loss is summed over the
    batch, so a sample's result does not depend on its neighbours; a NaN in a sample's gradient
    stays in that sample. The model comes back as it was; gradients of weights are never computed.

    Args:
        eps: Radius in units of the images; a number or a tensor (N,). 0 gives back x.
        norm: "linf", "l2" or "l1".
        step_size: Length of a step in the norm, a number or (N,); default 2.5 * eps / steps.
        steps: Number of steps; each costs one forward and one backward pass.
        random_start: Begin at a point uniform in the ball, clipped to the box, instead of at x.
        restarts: Independent runs. Of several, every sample keeps a run that fools the model, and
            among equals the one with the largest loss; a NaN output counts as fooled.
        select: "last" returns the last iterate, "best" the iterate (the last one included) chosen
            by the same rule as restarts. "best", like restarts > 1, costs one more forward pass.
        early_stop: A sample leaves the batch as soon as it fools the model, with that iterate,
            which makes the evaluation of weak models cheap; others are as with select "best".
        bounds: Lowest and highest pixel value, numbers or tensors, for example one per channel.
        outside: What becomes of images out of bounds, as those with injected features: "error";
            "clip", their attacked versions lie in the bounds, also further than eps from them (as
            published by Ortiz-Jimenez et al., 2022, who clip the perturbation to [-x, 1 - x]);
            "keep", each entry stays within [min(x, low), max(x, high)] and within eps. Bounds of
            (-inf, inf) are none.
        targeted: ``y`` are classes to reach rather than to leave.
        loss: "ce" (saturation-free cross-entropy), "margin", "dlr", or a callable
            (logits, y) -> (N,), larger being worse for the model.
        momentum: Decay of the accumulated gradient (Dong et al., 2018), 0 or more; 0 for none.
        l2_order: "clip_project" (default, uses the full radius) or "project_clip".
        l1_fraction: Share of the coordinates that an L1 step moves.
        model_mode: "eval" (default), "train" (batch statistics; running ones are restored) or
            "keep" (as handed in).
        autocast: torch.bfloat16 or torch.float16 for the model's forward pass; the attack's own
            state stays float32. None leaves the caller's autocast state.
        draws: Forward and backward passes whose mean is a step's gradient and whose mean logits
            decide what fools: for models that draw random numbers of their own (Athalye et al.,
            2018, expectation over transformation).
        execution: "exact" (default: iterates have the bits of the written-out loop), "fast"
            (BatchNorm folded, channels last) or an ``Execution`` with these and further speed-ups.
        seed: Int or ``torch.Generator`` for a reproducible stream that advances with every call.

    Attributes:
        report: Which speed-ups the last call used, and why not the others, an
            ``attacks.ExecutionReport``.

    Returns (on call):
        Adversarial images, shape of x, float32 (float64 for float64 images): half precision could
        not hold the radius. Images are cast to the model's dtype for its forward pass.

    Raises (on call):
        ValueError: Images out of bounds, labels out of range, eps negative or step_size not
            positive, an empty batch, a model that returns no logits or NaN at its first call, or
            is not differentiable.
        TypeError: Images that are not floating point, labels that are not integers.

    Example:
        >>> attack = PGD(8 / 255, step_size=2 / 255, steps=10, seed=0)
        >>> x_adv = attack(model, x, y)  # doctest: +SKIP
    """

    def __init__(
        self,
        eps: Scalar,
        *,
        norm: str = "linf",
        step_size: Scalar | None = None,
        steps: int = 10,
        random_start: bool = True,
        restarts: int = 1,
        select: Literal["last", "best"] = "last",
        early_stop: bool = False,
        bounds: Bounds = (0.0, 1.0),
        outside: Outside = "error",
        targeted: bool = False,
        loss: str | Loss = "ce",
        momentum: float = 0.0,
        l2_order: Order = "clip_project",
        l1_fraction: float = 0.01,
        model_mode: ModelMode = "eval",
        autocast: torch.dtype | None = None,
        draws: int = 1,
        execution: ExecutionLike = "exact",
        seed: int | torch.Generator | None = None,
    ) -> None:
        self.eps = eps
        self.norm = norm
        self.step_size = step_size
        self.steps = steps
        self.random_start = random_start
        self.restarts = restarts
        self.select = select
        self.early_stop = early_stop
        self.bounds = bounds
        self.outside: Outside = outside
        self.targeted = targeted
        self.loss = losses.get(loss)
        self.momentum = momentum
        self.l2_order: Order = l2_order
        self.l1_fraction = l1_fraction
        self.model_mode: ModelMode = model_mode
        self.autocast = autocast
        self.draws = draws
        self.execution = resolve(execution)
        self._check_settings()
        self.report = ExecutionReport()
        self._stream = Stream(seed)

    def _check_settings(self) -> None:
        check_whole(steps=self.steps, restarts=self.restarts, draws=self.draws)
        if self.steps < 1 or self.restarts < 1:
            raise ValueError(
                f"steps and restarts must be at least 1, got {self.steps} and {self.restarts}"
            )
        if self.draws < 1:
            raise ValueError(f"draws must be at least 1, got {self.draws}")
        if self.select not in ("last", "best"):
            raise ValueError(f"select must be 'last' or 'best', got {self.select!r}")
        if self.early_stop and self.model_mode == "train":
            raise ValueError(
                "early_stop shrinks the batch, which changes batch statistics: "
                "it needs model_mode 'eval'"
            )
        if self.restarts > 1 and not self.random_start:
            raise ValueError("restarts need random_start: without it every run is the same")
        if not 0 < self.l1_fraction <= 1:
            raise ValueError(f"l1_fraction must lie in (0, 1], got {self.l1_fraction}")
        check_number("momentum", self.momentum)
        check_autocast(self.autocast)
        check_norm(self.norm)
        check_outside(self.outside, cuda_graph=self.execution.cuda_graph)
        dynamic = self.early_stop or self.select == "best" or self.norm == "l1"
        if self.execution.cuda_graph and dynamic:
            raise ValueError(
                "execution: cuda_graph needs static shapes and no wait for the GPU: "
                "no early_stop, select 'last', norm 'linf' or 'l2'"
            )

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(eps={self.eps}, norm={self.norm!r}, steps={self.steps}, "
            f"restarts={self.restarts})"
        )

    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` (N, ...) with labels ``y`` (N,)."""
        with borrow(model, mode=self.model_mode, device=images_device(x), seed=self._stream.seed()):
            region = Region.around(
                x, norm=self.norm, eps=self.eps, bounds=self.bounds, outside=self.outside
            )
            region = replace(region, order=self.l2_order, fraction=self.l1_fraction)
            size = region.eps * (_COVER / self.steps) if self.step_size is None else self.step_size
            size = check_step(size, region)
            labels = check_labels(y, x)
            form = prepare(model, region.x, self.execution)
            self.report = form.report
            objective = InputGradient(
                form.model, self.loss, self.targeted, self.autocast, self.draws
            )
            problem = Problem(objective, region, labels, size)
            run = self._run
            if self.execution.cuda_graph:
                identity = (form.identity, memory_of(model))
                run = partial(self._run_graphed, form.graphs, identity)
                self.report = replace(form.report, graphed=True)
            if self.restarts == 1 and self.select == "last" and not self.early_stop:
                return run(problem)
            found = BestAdversarial(region.x, targeted=self.targeted)
            for restart in range(self.restarts):
                run(problem, found, check=restart == 0)
            return found.images

    def _start(self, region: Region) -> Tensor:
        if not self.random_start:
            return region.x
        return region.random(self._stream)

    @torch.no_grad()
    def _run(
        self, problem: Problem, found: BestAdversarial | None = None, *, check: bool = True
    ) -> Tensor:
        """One run; offers to ``found`` the iterates that count."""
        rows = torch.arange(len(problem.y), device=problem.y.device)
        if self.early_stop and found is not None and bool(found.fooled.any()):
            rows = rows[~found.fooled]
            problem = problem.rows(rows)
        if not len(rows):
            return problem.region.x
        adv = self._start(problem.region)
        velocity: Tensor | None = None
        every_iterate = self.early_stop or self.select == "best"
        for step in range(self.steps):
            with torch.enable_grad():
                logits, value, gradient = problem.objective(
                    adv, problem.y, check=check and step == 0
                )
            if found is not None and every_iterate:
                found.offer(rows, adv, logits, problem.y, value)
            if self.momentum:
                gradient = velocity = self._accumulate(velocity, gradient)
            if found is not None and self.early_stop:
                alive = ~found.fooled[rows]
                if not bool(alive.all()):
                    rows, adv, gradient = rows[alive], adv[alive], gradient[alive]
                    problem = problem.rows(alive)
                    velocity = None if velocity is None else velocity[alive]
                    if not len(rows):
                        return adv
            adv = problem.step(adv, gradient)
        if found is not None:
            problem.offer(found, rows, adv)
        return adv

    @torch.no_grad()
    def _run_graphed(
        self,
        graphs: Graphs,
        identity: tuple[Any, ...],
        problem: Problem,
        found: BestAdversarial | None = None,
        *,
        check: bool = True,
    ) -> Tensor:
        """As ``_run`` without a say of the iterates: the steps come from a CUDA graph."""
        settings = (self.steps, self.momentum, identity)
        adv = replay(self._steps_alone, graphs, settings, problem, self._start(problem.region))
        if found is not None:
            problem.offer(found, torch.arange(len(adv), device=adv.device), adv)
        return adv

    def _accumulate(self, velocity: Tensor | None, gradient: Tensor) -> Tensor:
        gradient = l1_normalise(gradient)
        return gradient if velocity is None else self.momentum * velocity + gradient

    def _steps_alone(self, problem: Problem, adv: Tensor) -> tuple[Tensor, Tensor]:
        """The steps without a wait for the device; gives the last adv and the first logits."""
        velocity: Tensor | None = None
        first: Tensor | None = None
        for _ in range(self.steps):
            with torch.enable_grad():
                logits, _, gradient = problem.objective(adv, problem.y)
            first = logits if first is None else first
            if self.momentum:
                gradient = velocity = self._accumulate(velocity, gradient)
            adv = problem.step(adv, gradient)
        assert first is not None
        return adv, first


class NearbyStartPGD(PGD):
    """PGD that begins at x + 0.001 N(0, 1), as TRADES does: its loss has no gradient at x itself.

    Args:
        eps: As in ``PGD``.
        options: Further settings of ``PGD``.
    """

    def _start(self, region: Region) -> Tensor:
        x = region.x
        generator = self._stream.on(x.device)
        noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        return region.project(x + _NEARBY * noise)
