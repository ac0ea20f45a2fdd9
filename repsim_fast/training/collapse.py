"""A guard against catastrophic overfitting: keeps the last weights before it, for a return."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import SupportsFloat

from torch import Tensor, nn

from repsim_fast._core import headers
from repsim_fast._core.model_state import unwrap
from repsim_fast._core.tensor_files import read_tensors, write_tensors

from .callback import OnEpoch, StopTraining
from .history import Epoch
from .overfitting import OverfittingDetector, Probe

_HEADER = "repsim_fast_before_collapse"
_SCHEMA = headers.record(
    {"epoch": headers.optional(headers.whole(0)), "best": headers.number(0, 1)},
    {"collapsed": headers.optional(headers.whole(0)), "verdict": headers.optional(headers.text())},
)


class CollapseGuard:
    """An ``on_epoch`` that tells when a training collapses, and can end it with the weights before.

    Goes by what ``Evaluation(detector=...)`` of the same detector measures after each epoch. The
    figure ``collapsed`` is 1 in the epochs of which the detector says that robustness is lost or
    masked, else 0.

    Args:
        detector: That of the ``Evaluation``.
        restore: End the training in the epoch of the collapse, with the weights of the last epoch
            before; the record of the epoch still has its own figures. Without it the training goes
            on. Of averaged weights (``ema``) ``train`` leaves the last average in the model:
            ``restore_into`` brings those before back afterwards.
        kept: File of these weights and of the collapse, with which a resumed training knows them
            too; None to hold them in memory only.
        then: A further ``on_epoch``, called first; its figures come beside this one.

    Attributes:
        collapsed: First epoch found to have collapsed, None without.
        verdict: What the detector said of it.
        good: Last epoch without such a verdict, None without.

    Raises (on call):
        ValueError: An epoch without the detector's accuracies, a file that is not of this model,
            or a figure of that name already.

    Example:
        >>> from repsim_fast.training import CollapseGuard, Evaluation, OverfittingDetector
        >>> detector = OverfittingDetector(8 / 255)
        >>> guard = CollapseGuard(detector, restore=True)
        >>> evaluation = Evaluation(detector=detector)
        >>> train(net, images, evaluation=evaluation, on_epoch=guard)  # doctest: +SKIP
        >>> guard.good, guard.collapsed  # doctest: +SKIP
    """

    def __init__(
        self,
        detector: OverfittingDetector,
        *,
        restore: bool = False,
        kept: str | os.PathLike[str] | None = None,
        then: OnEpoch | None = None,
    ) -> None:
        self.detector, self.restore, self.kept, self.then = detector, restore, kept, then
        self.collapsed: int | None = None
        self.verdict: str | None = None
        self.good: int | None = None
        self._begun = False
        self._best = 0.0
        self._weights: dict[str, Tensor] = {}

    def __call__(self, model: nn.Module, record: Epoch) -> Mapping[str, SupportsFloat]:
        """The figures of ``then`` and ``collapsed``."""
        stopped: StopTraining | None = None
        figures: Mapping[str, SupportsFloat] = {}
        if self.then is not None:
            try:
                figures = self.then(model, record) or {}
            except StopTraining as stop:
                stopped, figures = stop, stop.figures or {}
        verdict = self._look(model, record)
        if "collapsed" in figures:
            raise ValueError("then: the guard has a figure 'collapsed' already")
        figures = {**figures, "collapsed": float(verdict is not None)}
        if verdict is not None and self.restore:
            raise StopTraining(f"{verdict}; {self._brought_back(model)}", figures)
        if stopped is not None:
            raise StopTraining(stopped.reason, figures)
        return figures

    def restore_into(self, model: nn.Module) -> None:
        """The weights of epoch ``good`` into the model.

        Raises:
            ValueError: There are none, or they are not of this model.
        """
        if self.good is None:
            raise ValueError("no epoch before a collapse has been seen, so no weights are kept")
        now = unwrap(model).state_dict()
        shapes, wanted = ({n: tuple(w.shape) for n, w in s.items()} for s in (self._weights, now))
        if shapes != wanted:
            raise ValueError(f"{self.kept or 'the guard'} holds weights of another model")
        unwrap(model).load_state_dict(self._weights)

    def _look(self, model: nn.Module, record: Epoch) -> str | None:
        """The detector's verdict; the weights are kept if there is none."""
        if record.fgsm_accuracy is None or record.pgd_accuracy is None:
            raise ValueError("a guard needs Evaluation(detector=...): the epoch has no probes")
        if not self._begun and record.epoch > 0:
            self._take_up(record.epoch)
        self._begun = True
        best = Probe(self._best, self._best)
        verdict = self.detector.verdict([best, Probe(record.fgsm_accuracy, record.pgd_accuracy)])
        if verdict is None:
            self.good, self._best = record.epoch, max(self._best, record.pgd_accuracy)
            self._keep(model)
        elif self.collapsed is None:
            self.collapsed, self.verdict = record.epoch, verdict
            self._write()
        return verdict

    def _brought_back(self, model: nn.Module) -> str:
        if self.good is None:
            return "there are no earlier weights to go back to"
        self.restore_into(model)
        return f"back to the weights of epoch {self.good}"

    def _keep(self, model: nn.Module) -> None:
        # Copies on the CPU, each with memory of its own, as files of tensors want them.
        self._weights = {
            name: value.detach().to("cpu", copy=True).contiguous()
            for name, value in unwrap(model).state_dict().items()
        }
        self._write()

    def _write(self) -> None:
        if self.kept is None:
            return
        about = {
            "epoch": self.good,
            "best": self._best,
            "collapsed": self.collapsed,
            "verdict": self.verdict,
        }
        write_tensors(self.kept, self._weights, {_HEADER: json.dumps(about)})

    def _take_up(self, epoch: int) -> None:
        """What an interrupted training kept, if it is of no epoch after this one."""
        if self.kept is None or not os.path.exists(self.kept):
            return
        metadata, weights = read_tensors(self.kept)
        about = headers.parsed(metadata.get(_HEADER), _SCHEMA, os.fspath(self.kept))
        good, collapsed = about["epoch"], about.get("collapsed")
        if good is not None and good <= epoch:
            self.good, self._best, self._weights = good, about["best"], weights
        if collapsed is not None and collapsed <= epoch:
            self.collapsed, self.verdict = collapsed, about.get("verdict")
