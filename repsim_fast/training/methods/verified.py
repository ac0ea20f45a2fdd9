"""Training for verified bounds: on the worst logits that interval or linear bounds allow."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from repsim_fast._core.borrow import call
from repsim_fast._core.model_state import evaluating, unwrap
from repsim_fast._core.ramp import Ramp
from repsim_fast.verification import Traced, margin_bounds, trace
from repsim_fast.verification.agreement import check_agreement
from repsim_fast.verification.intervals import Bounds

from .base import Method, TrainingBatch, noted

Number = float | Ramp


@noted
def ibp(
    eps: Number = 8 / 255,
    *,
    kappa: Number = 0.5,
    begin: float = 0.0,
    end: float = 0.5,
    bounds: Bounds | None = (0.0, 1.0),
) -> Method:
    """Interval bounds: kappa CE(f(x), y) + (1 - kappa) CE(z, y), z the worst logits of the ball.

    z_c = -(lower bound of f_y - f_c), ``verification.margin_bounds`` by "ibp" in units without
    rounding. What the network has to meet grows: in a straight line from the share ``begin`` of the
    training to ``end`` eps goes from 0 to its value and kappa from 1, as Gowal et al. have it; a
    ``Ramp`` in place of either number is a course of its own. The first term, and batch norms'
    statistics, come from the clean images; bounds take these statistics as they are, as in eval
    mode, and so leave out dropout.

    Args:
        eps: Linf radius at the end, in image units; a little more than the radius of the verified
            accuracy does best.
        kappa: Weight of the clean images at the end, in [0, 1].
        begin: Share of the training before the radius grows.
        end: Share after which it stays.
        bounds: As in ``verification.output_bounds``.

    Raises:
        ValueError: Numbers or shares out of range.

    References:
        Gowal et al., "On the effectiveness of interval bound propagation for training verifiably
        robust models", 2018.
    """
    courses = _Courses(begin, end)
    return _method("ibp", courses.to(eps, "eps"), courses.to(kappa, "kappa", 1.0), None, bounds)


@noted
def crown_ibp(
    eps: Number = 8 / 255,
    *,
    kappa: Number = 0.5,
    beta: Number = 0.0,
    begin: float = 0.0,
    end: float = 0.5,
    bounds: Bounds | None = (0.0, 1.0),
) -> Method:
    """As ``ibp``, with margins (1 - beta) m_IBP + beta m_CROWN-IBP, of which beta falls.

    The tighter bounds guide the training while its radius is small: beta goes from 1, while eps
    grows, to its value. kappa 0 from the start, as in HYDRA, is ``Ramp(0, 0)``.

    Args:
        eps: Linf radius at the end, in image units.
        kappa: Weight of the clean images at the end, in [0, 1].
        beta: Share of CROWN-IBP's margins at the end, in [0, 1].
        begin: Share of the training before the radius grows.
        end: Share after which it stays.
        bounds: As in ``verification.output_bounds``.

    Raises:
        ValueError: Numbers or shares out of range.

    References:
        Zhang et al., "Towards stable and efficient training of verifiably robust neural networks",
        2020.
    """
    courses = _Courses(begin, end)
    return _method(
        "crown-ibp", courses.to(eps, "eps"), courses.to(kappa, "kappa", 1.0),
        courses.to(beta, "beta", 1.0), bounds,
    )  # fmt: skip


class _Courses:
    """What plain numbers begin with, and when they are reached."""

    def __init__(self, begin: float, end: float) -> None:
        self._begin, self._end = begin, end

    def to(self, value: Number, name: str, start: float = 0.0) -> Ramp:
        """``value`` itself, or the ramp to it, within what the number may be."""
        course = value if isinstance(value, Ramp) else Ramp(start, value, self._begin, self._end)
        ends = (course.start, course.stop)
        if name == "eps" and not (ends[0] >= 0 and ends[1] > 0):
            raise ValueError(f"eps must be positive, from 0 on before, got {value}")
        if name != "eps" and not all(0 <= end <= 1 for end in ends):
            raise ValueError(f"{name} must lie in [0, 1], got {value}")
        return course


def _method(name: str, eps: Ramp, kappa: Ramp, beta: Ramp | None, bounds: Bounds | None) -> Method:
    graphs = _Graphs()

    def perturb(model: nn.Module, batch: TrainingBatch) -> Tensor:
        # Where no regulariser watches the layers yet.
        traced = graphs.prepare(model, anew=batch.progress.first)
        with evaluating([traced.model]):
            check_agreement(traced, batch.x.to(_dtype(name, traced.model)), bounds)
        return batch.x

    def loss(model: nn.Module, batch: TrainingBatch, perturbed: Tensor) -> tuple[Tensor, Tensor]:
        at = batch.progress.fraction
        logits = call(model, perturbed)
        clean = batch.cross_entropy(logits)
        weight = kappa.at(at)
        if weight == 1:
            return clean, logits
        traced = graphs.prepare(model)
        x = perturbed.to(_dtype(name, traced.model))
        with evaluating([traced.model]):
            share = 0.0 if beta is None else beta.at(at)
            margins = torch.zeros((), dtype=x.dtype, device=x.device)
            for method, part in _shares(share):
                margins = margins + part * margin_bounds(
                    traced, x, batch.y, eps.at(at), method=method, bounds=bounds, rounded=False
                )
        worst = nn.functional.cross_entropy(-margins, batch.y)
        return weight * clean + (1 - weight) * worst, logits

    return Method(name, perturb, loss, eps=eps.stop)


def _shares(beta: float) -> list[tuple[Literal["ibp", "crown-ibp"], float]]:
    """Of which margins how much, but for those of which there is nothing."""
    both: list[tuple[Literal["ibp", "crown-ibp"], float]] = [("ibp", 1 - beta), ("crown-ibp", beta)]
    return [(method, part) for method, part in both if part > 0]


def _dtype(name: str, model: nn.Module) -> torch.dtype:
    found = next(model.parameters()).dtype
    if found not in (torch.float32, torch.float64):
        raise ValueError(
            f"method {name!r} needs weights in float32 or float64, whose bounds say something, got "
            f"{found}"
        )
    return found


class _Graphs:
    """The graph of the model in training: found once an epoch, as layers may change between."""

    def __init__(self) -> None:
        self._held: Traced | None = None

    def prepare(self, model: nn.Module, *, anew: bool = False) -> Traced:
        inner = unwrap(model)
        if anew or self._held is None or self._held.model is not inner:
            with evaluating([inner]):
                self._held = trace(inner)
        return self._held
