"""Auto-PGD: step sizes and restarts from the best point without tuning (Croce & Hein)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from repsim_fast._core.batch_checks import check_labels, check_logits, images_device
from repsim_fast._core.borrow import Model, borrow
from repsim_fast._core.checks import check_autocast, check_whole
from repsim_fast._core.randomness import Stream
from repsim_fast.ops import Bounds, Scalar
from repsim_fast.ops.directions import l2_direction, per_sample

from . import losses
from .best_adversarial import BestAdversarial
from .execution.compiled_form import prepare
from .execution.options import ExecutionLike, ExecutionReport, resolve
from .losses import Loss
from .objective import InputGradient
from .region import Outside, Region, check_norm, check_outside

# Constants of the papers: Croce & Hein 2020 (Linf, L2), section 3; 2021 (L1), section 4.
_FIRST_CHECK, _CHECK_SHRINKS, _LEAST_CHECK = 0.22, 0.03, 0.06
_ENOUGH_SUCCESS = 0.75
_MOMENTUM = 0.75
_L1_CHECK = 0.04
_L1_SPARSER, _L1_SUPPORT_SHRANK = 1.5, 0.95
_L1_SMALLEST_STEP = 0.1
_L1_PHASES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))


@dataclass
class _State:
    """One row a sample; every field can be indexed by rows alike."""

    rows: Tensor  # (M,) positions in the batch
    x: Tensor
    y: Tensor  # (M,) labels, or targets of a targeted attack: they decide what fools
    aim: Tensor  # (M,) or (M, k), what the loss is given
    adv: Tensor
    previous: Tensor
    gradient: Tensor
    value: Tensor  # (M,)
    best: Tensor
    best_gradient: Tensor
    best_value: Tensor  # (M,)
    checked_value: Tensor  # (M,) best value at the last checkpoint
    size: Tensor  # (M,)
    improved: Tensor  # (M,) improving steps since the last checkpoint
    was_halved: Tensor  # (M,) bool, at the last checkpoint
    fraction: Tensor  # (M,) share of coordinates of an L1 step
    support: Tensor  # (M,) coordinates of the best perturbation at the last L1 checkpoint

    def take(self, index: Tensor) -> _State:
        return _State(**{name: value[index] for name, value in vars(self).items()})


@dataclass(frozen=True)
class _Search:
    """What one ascent works on.

    Attributes:
        objective: Loss and input gradient.
        region: Where the images may go.
        rows: Their positions in the batch (N,).
        y: Labels or targets (N,): they decide what fools.
        aim: What the loss is given, (N,) or (N, k).
        steps: Number of steps.
        found: What keeps the candidates; None where points are none.
    """

    objective: InputGradient
    region: Region
    rows: Tensor
    y: Tensor
    aim: Tensor
    steps: int
    found: BestAdversarial | None


class APGD:
    """Auto-PGD: a callable (model, x, y) -> x_adv, the strongest gradient attack without a tuning.

    A sample's step is halved, and the search returns to its best point, when too few steps
    improved its loss; a sample that fools the model leaves the batch. For L1 the step is sparse,
    its share of coordinates follows the support found, and three phases with radii 3, 2 and 1 eps
    (of 30, 30 and 40 % of the steps) bring a point found in a larger ball into the right one; the
    first run begins at the images, further ones at sparse noise. Each of ``steps`` costs one
    forward and one backward pass, and a run one more, in L1 three.

    Args:
        eps: Radius, a number or a tensor (N,). 0 gives back x.
        norm: "linf", "l2" or "l1".
        steps: Steps of each run.
        loss: "ce" (saturation-free), "dlr", "margin" or a callable (logits, y) -> (N,).
        restarts: Runs on the samples that are still classified correctly.
        targeted: ``y`` are classes to reach.
        bounds: Lowest and highest pixel value, numbers or tensors.
        outside: As in ``PGD``.
        autocast: As in ``PGD``.
        draws: As in ``PGD``.
        execution: As in ``PGD``, without CUDA graphs: the batch shrinks.
        seed: Int or ``torch.Generator``; the stream advances with every call.

    Attributes:
        report: As in ``PGD``.

    Returns (on call):
        For each sample an image that fools the model, the last seen, or that of the largest loss.

    Raises (on call):
        As ``PGD``; ValueError for a loss that needs more classes.

    References:
        Croce & Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
        parameter-free attacks", 2020; "Mind the box: l1-APGD for sparse adversarial attacks", 2021.
    """

    def __init__(
        self,
        eps: Scalar,
        *,
        norm: str = "linf",
        steps: int = 100,
        loss: str | Loss = "ce",
        restarts: int = 1,
        targeted: bool = False,
        bounds: Bounds = (0.0, 1.0),
        outside: Outside = "error",
        autocast: torch.dtype | None = None,
        draws: int = 1,
        execution: ExecutionLike = "exact",
        seed: int | torch.Generator | None = None,
    ) -> None:
        check_whole(steps=steps, restarts=restarts, draws=draws)
        if steps < 1 or restarts < 1:
            raise ValueError(f"steps and restarts must be at least 1, got {steps} and {restarts}")
        if draws < 1:
            raise ValueError(f"draws must be at least 1, got {draws}")
        check_autocast(autocast)
        check_norm(norm)
        check_outside(outside, cuda_graph=False)
        self.eps = eps
        self.norm = norm
        self.steps = steps
        self.loss = losses.get(loss)
        self.restarts = restarts
        self.targeted = targeted
        self.bounds = bounds
        self.outside: Outside = outside
        self.autocast = autocast
        self.draws = draws
        self.execution = resolve(execution)
        if self.execution.cuda_graph:
            raise ValueError("execution: cuda_graph needs static shapes, but APGD's batch shrinks")
        self.report = ExecutionReport()
        self._stream = Stream(seed)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(eps={self.eps}, norm={self.norm!r}, steps={self.steps}, "
            f"restarts={self.restarts})"
        )

    @torch.no_grad()
    def __call__(self, model: Model, x: Tensor, y: Tensor) -> Tensor:
        """Adversarial images for ``x`` (N, ...) with labels ``y`` (N,)."""
        with borrow(model, mode="eval", device=images_device(x), seed=self._stream.seed()):
            region = Region.around(
                x, norm=self.norm, eps=self.eps, bounds=self.bounds, outside=self.outside
            )
            found = BestAdversarial(region.x, targeted=self.targeted)
            labels = check_labels(y, x)
            form = prepare(model, region.x, self.execution)
            self.report = form.report
            self._attack(form.model, region, labels, found)
            return found.images

    def _attack(self, model: Model, region: Region, y: Tensor, found: BestAdversarial) -> None:
        objective = InputGradient(model, self.loss, self.targeted, self.autocast, self.draws)
        for number in range(self.restarts):
            self._run(objective, region, y, y, found, number)

    def _run(
        self,
        objective: InputGradient,
        region: Region,
        y: Tensor,
        aim: Tensor,
        found: BestAdversarial,
        number: int,
    ) -> None:
        """One run, the ``number``-th of its aim, on the samples that do not fool the model yet."""
        rows = torch.nonzero(~found.fooled).squeeze(1)
        if not len(rows):
            return
        region, y, aim = region.rows(rows), y[rows], aim[rows]
        search = _Search(objective, region, rows, y, aim, self.steps, found)
        if region.norm != "l1":
            _ascend(search, _far_start(region, self._stream.on(region.x.device)))
            return
        # Noise uses up the ball, and takes steps to be replaced: only where points are to differ.
        adv = region.gaussian(self._stream) if number else region.x
        for factor, steps in _l1_phases(self.steps):
            wide = replace(region, eps=region.eps * factor)
            # Only points of the last phase lie in the ball: earlier ones are no candidates.
            candidates = found if factor == 1.0 else None
            phase = replace(search, region=wide, steps=steps, found=candidates)
            adv = _ascend(phase, wide.project(adv))


def _l1_phases(steps: int) -> list[tuple[float, int]]:
    """Factor of the radius and number of steps of each phase; too few steps are all in the ball."""
    if steps < len(_L1_PHASES):
        return [(1.0, steps)]
    *wide, (factor, _) = ((factor, max(1, int(share * steps))) for factor, share in _L1_PHASES)
    return [*wide, (factor, steps - sum(n for _, n in wide))]


def _far_start(region: Region, generator: torch.Generator) -> Tensor:
    """A random point on the boundary of the ball, brought inside the box."""
    x = region.x
    if region.norm == "l2":
        noise = torch.randn(x.shape, dtype=x.dtype, device=x.device, generator=generator)
        direction = l2_direction(noise)
    else:
        noise = 2 * torch.rand(x.shape, dtype=x.dtype, device=x.device, generator=generator) - 1
        direction = noise / noise.abs().flatten(1).amax(1).view(-1, *[1] * (x.ndim - 1))
    return region.project(x + per_sample(region.eps, x) * direction)


def _ascend(search: _Search, adv: Tensor) -> Tensor:
    """Ascend from ``adv``; gives the best points.

    Where points are candidates, samples leave as soon as they fool the model, and only then may the
    result have fewer rows than it began with.
    """
    region, found, sparse = search.region, search.found, search.region.norm == "l1"
    adapt = _l1_checkpoint if sparse else _checkpoint
    state = _begin(search, adv)
    lower = torch.as_tensor(region.eps, dtype=adv.dtype, device=adv.device) * _L1_SMALLEST_STEP
    checkpoints = _checkpoints(search.steps, sparse=sparse)
    for step in range(search.steps):
        if found is not None:
            alive = ~found.fooled[state.rows]
            if not bool(alive.all()):
                state, region = state.take(alive), region.rows(alive)
                lower = lower[alive] if lower.ndim else lower
        if not len(state.rows):
            break
        _move(state, region, momentum=_MOMENTUM if step and not sparse else 1.0)
        logits, value = _evaluate(search, state, last=step == search.steps - 1)
        if found is not None:
            found.offer(state.rows, state.adv, logits, state.y, value)
        _compare(state, value)
        if step in checkpoints:
            adapt(state, checkpoints[step], lower)
    return state.best


def _checkpoints(steps: int, *, sparse: bool) -> dict[int, int]:
    """The steps after which sizes are adapted, and how many steps each looks back on."""
    period = max(1, int(steps * (_L1_CHECK if sparse else _FIRST_CHECK)))
    shrink, least = max(1, int(_CHECK_SHRINKS * steps)), max(1, int(_LEAST_CHECK * steps))
    periods = {}
    step = period - 1
    while step < steps - 1:  # after the last step there is nothing left to adapt
        periods[step] = period
        if not sparse:
            period = max(period - shrink, least)
        step += period
    return periods


def _evaluate(search: _Search, state: _State, *, last: bool) -> tuple[Tensor, Tensor]:
    """Logits and ascended value of the present points; their gradient goes into ``state``."""
    if last:  # no step follows
        logits = search.objective.logits(state.adv)
        return logits, search.objective.value(logits, state.aim)
    with torch.enable_grad():
        logits, value, state.gradient = search.objective(state.adv, state.aim)
    return logits, value


def _begin(search: _Search, adv: Tensor) -> _State:
    with torch.enable_grad():
        logits, value, gradient = search.objective(adv, search.aim, check=True)
    if search.found is not None:
        search.found.offer(search.rows, adv, logits, search.y, value)
    n, d, eps = len(adv), adv[0].numel(), search.region.eps
    size = eps if search.region.norm == "l1" else 2.0 * eps
    support = _support(search.region.x, adv)
    unmoved = support == 0
    return _State(
        rows=search.rows,
        x=search.region.x,
        y=search.y,
        aim=search.aim,
        adv=adv,
        previous=adv,
        gradient=gradient,
        value=value,
        best=adv.clone(),
        best_gradient=gradient.clone(),
        best_value=value.clone(),
        checked_value=value.clone(),
        size=torch.as_tensor(size, dtype=adv.dtype, device=adv.device).expand(n).clone(),
        improved=torch.zeros(n, device=adv.device),
        was_halved=torch.ones(n, dtype=torch.bool, device=adv.device),
        fraction=torch.where(unmoved, _steepest(search.region), _fraction(support, d)),
        support=torch.where(unmoved, float(d), support),
    )


def _move(state: _State, region: Region, *, momentum: float) -> None:
    """z = P(x_t + size d), then x_{t+1} = P(x_t + m (z - x_t) + (1 - m) (x_t - x_{t-1}))."""
    adv = replace(region, fraction=state.fraction).step(state.adv, state.gradient, state.size)
    if momentum != 1.0:
        inertia = (1.0 - momentum) * (state.adv - state.previous)
        adv = region.project(state.adv + momentum * (adv - state.adv) + inertia)
    state.previous, state.adv = state.adv, adv


def _compare(state: _State, value: Tensor) -> None:
    """Count an improving step and keep the best point."""
    state.improved += (value > state.value).to(state.improved.dtype)
    state.value = value
    better = value > state.best_value
    state.best_value = torch.where(better, value, state.best_value)
    mask = better.view(-1, *[1] * (state.adv.ndim - 1))
    state.best = torch.where(mask, state.adv, state.best)
    state.best_gradient = torch.where(mask, state.gradient, state.best_gradient)


def _back_to_best(state: _State, which: Tensor) -> None:
    mask = which.view(-1, *[1] * (state.adv.ndim - 1))
    state.adv = torch.where(mask, state.best, state.adv)
    state.gradient = torch.where(mask, state.best_gradient, state.gradient)
    state.value = torch.where(which, state.best_value, state.value)


def _checkpoint(state: _State, period: int, lower: Tensor) -> None:
    """Halve the step of samples that oscillate or stand still (Linf and L2)."""
    oscillates = state.improved < _ENOUGH_SUCCESS * period
    stands = ~state.was_halved & (state.best_value <= state.checked_value)
    halve = oscillates | stands
    state.size = torch.where(halve, state.size / 2, state.size)
    state.was_halved = halve
    state.checked_value = state.best_value.clone()
    state.improved.zero_()
    _back_to_best(state, halve)


def _l1_checkpoint(state: _State, period: int, lower: Tensor) -> None:
    """Sparsity from the support of the best point; large steps again when that shrank."""
    support = _support(state.x, state.best)
    shrank = support < _L1_SUPPORT_SHRANK * state.support
    state.support = support
    state.fraction = _fraction(support, state.x[0].numel())
    largest = lower / _L1_SMALLEST_STEP
    smaller = torch.maximum(state.size / _L1_SPARSER, lower.expand_as(state.size))
    state.size = torch.where(shrank, largest, smaller)
    _back_to_best(state, shrank)


def _support(x: Tensor, adv: Tensor) -> Tensor:
    """Number of coordinates that are moved, (N,).

    Entries that tie with the projection's threshold are left at 0 or one rounding away from it;
    were the latter counted, rounding would choose the sparsity. It is that of an entry after its
    step, which may be far larger than the entry itself.
    """
    largest_entry = x.abs().flatten(1).amax(1, keepdim=True)
    rounding = 4 * torch.finfo(x.dtype).eps * largest_entry
    return ((adv - x).abs().flatten(1) > rounding).sum(1).to(x.dtype)


def _steepest(region: Region) -> Tensor:
    """Share of the coordinates that the steepest L1 direction is expected to have, (N,).

    In ball and box it uses up the radius by the largest gradients, each as far as the box lets it:
    half of its width on average.
    """
    x = region.x
    widths = torch.as_tensor(region.high - region.low, dtype=x.dtype, device=x.device)
    eps = torch.as_tensor(region.eps, dtype=x.dtype, device=x.device)
    share = 2 * eps / widths.expand(x.shape).flatten(1).sum(1)
    return share.nan_to_num(nan=1.0).clamp(1 / x[0].numel(), 1.0)


def _fraction(support: Tensor, d: int) -> Tensor:
    """Share of ``d`` coordinates that the next L1 step moves."""
    return support / d / _L1_SPARSER


class APGDTargeted(APGD):
    """APGD towards each of the most likely wrong classes in turn, on the targeted DLR loss.

    Args:
        eps: Radius, a number or (N,).
        n_targets: Classes tried, the most likely first; at most n_classes - 1.
        options: Further settings of ``APGD``; loss "dlr" (default) or "ce".

    Raises (on call):
        ValueError: Fewer than 4 classes with the DLR loss.
    """

    def __init__(
        self, eps: Scalar, *, n_targets: int = 9, loss: str = "dlr", **options: Any
    ) -> None:
        if loss not in _TOWARDS:
            raise ValueError(f"loss must be one of {sorted(_TOWARDS)}, got {loss!r}")
        if n_targets < 1:
            raise ValueError(f"n_targets must be at least 1, got {n_targets}")
        if options.get("targeted"):
            raise ValueError("targeted: this attack chooses targets itself, from the labels y")
        super().__init__(eps, loss=_TOWARDS[loss], **options)
        self.n_targets = n_targets

    def _attack(self, model: Model, region: Region, y: Tensor, found: BestAdversarial) -> None:
        objective = InputGradient(model, self.loss, autocast=self.autocast, draws=self.draws)
        logits = objective.logits(region.x)
        check_logits(logits, y)
        others = logits.scatter(1, y.unsqueeze(1), -torch.inf)
        targets = others.topk(min(self.n_targets, logits.shape[1] - 1)).indices
        for target in targets.unbind(1):
            aim = torch.stack((y, target), 1)
            for number in range(self.restarts):
                self._run(objective, region, y, aim, found, number)


_TOWARDS: dict[str, Loss] = {
    "dlr": losses.dlr_towards,
    "ce": losses.cross_entropy_towards,
}
