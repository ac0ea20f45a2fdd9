"""The epochs of one training, from the first or a resumed one to the last."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from repsim_fast._core.model_state import evaluating
from repsim_fast.data.labelled import LabelledImages

from . import checkpoints
from .callback import Answer, OnEpoch, ask
from .epoch import train_epoch
from .evaluation import evaluate_shared
from .history import Epoch, Log
from .named_sets import accuracy_name
from .overfitting import Probe
from .plan import Plan
from .progress_bar import ProgressBar
from .settings import Evaluation, Saving
from .step import Step

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """A training under way; ``settings`` is what a resumed one must have in common with it."""

    plan: Plan
    step: Step
    data: LabelledImages
    evaluation: Evaluation
    saving: Saving
    settings: Mapping[str, Any]
    on_epoch: OnEpoch | None
    log: Log
    bar: ProgressBar


def train_epochs(run: Run) -> None:
    """Whatever is left to do of the training."""
    history = run.step.state.history
    history.chosen_by = run.evaluation.best
    try:
        if not run.step.state.answered:
            conclude(run, history.epochs.pop())
        elif history.epochs:
            look_for_overfitting(run)
        while len(history) < run.plan.epochs and history.stopped is None:
            conclude(run, one_epoch(run, len(history)))
    except KeyboardInterrupt:
        if run.saving.folder is not None and run.step.group.first:
            _logger.warning(
                "interrupted after %d of %d epochs: go on with Saving(%r, resume=True) "
                "(command line: --resume)",
                len(history), run.plan.epochs, str(run.saving.folder),
            )  # fmt: skip
        raise


def one_epoch(run: Run, epoch: int) -> Epoch:
    """Train and evaluate; gives the record."""
    started = time.perf_counter()
    state, group, device = run.step.state, run.step.group, run.step.device
    passed = train_epoch(run.step, run.data, run.plan, epoch, run.bar)
    group.broadcast(state.model)
    record = Epoch(epoch, *passed, seconds=0.0)
    with state.averaged():
        if _due(run, epoch):
            record = _evaluated(run, record)
        if (detector := run.evaluation.detector) is not None:
            probe = detector.probe(state.model, run.data, device)
            record = replace(record, fgsm_accuracy=probe.fgsm, pgd_accuracy=probe.pgd)
    return replace(record, seconds=time.perf_counter() - started)


def _evaluated(run: Run, record: Epoch) -> Epoch:
    """The record with the accuracies of all sets; the first one's are also its main ones."""
    evaluation, step = run.evaluation, run.step
    accuracies: dict[str, float] = {}
    for number, (name, data) in enumerate(evaluation.sets().items()):
        attacks = evaluation.attacks_on(name)
        scores = evaluate_shared(
            step.state.model, data, attacks or None, step.device, step.group, step.forms
        )
        if number == 0:
            record = replace(record, clean_accuracy=scores.clean, robust_accuracy=scores.robust)
        robust = [scores.under.get(attack, scores.robust) for attack in attacks]
        for attack, share in zip((None, *attacks), (scores.clean, *robust), strict=True):
            if (full := accuracy_name(name, attack)) is not None and share is not None:
                accuracies[full] = share
    return replace(record, accuracies=accuracies)


def _due(run: Run, epoch: int) -> bool:
    return (epoch + 1) % run.evaluation.every == 0 or epoch == run.plan.epochs - 1


def conclude(run: Run, record: Epoch) -> None:
    """Ask ``on_epoch``, keep the epoch whatever it answers, then go by its answer.

    Raises:
        RuntimeError: ``on_epoch`` raised an error.
    """
    state = run.step.state
    with state.averaged():
        with evaluating([state.model]):
            answer = ask(run.on_epoch, state.model, record, run.step.group, run.step.device)
        record = replace(record, figures=answer.figures)
        state.history.epochs.append(record)
        _save_weights(run, record)
    state.answered = answer.final
    run.log.write(record)
    run.bar.conclude(record)
    _save_state(run)
    _raise_error(run, answer)
    state.history.stopped = answer.stop
    look_for_overfitting(run)


def _save_weights(run: Run, record: Epoch) -> None:
    if run.saving.folder is None or not run.step.group.first:
        return
    state = run.step.state
    names = ["best", "last"] if state.history.best is record else ["last"]
    for name in names:
        path = Path(run.saving.folder) / f"{name}.safetensors"
        checkpoints.save_weights(path, state.model, run.saving.architecture, record)


def _save_state(run: Run) -> None:
    if run.saving.folder is not None and run.step.group.first:
        path = Path(run.saving.folder) / checkpoints.RESUME
        checkpoints.save_state(path, run.step.state, run.settings)


def _raise_error(run: Run, answer: Answer) -> None:
    folder = run.saving.folder
    kept = (
        "nothing is saved: there is no folder to save to"
        if folder is None
        else f"the epoch is saved in {folder}: resumed, a training asks for it again"
    )
    answer.raise_error(run.step.state.history.last.epoch, kept)


def look_for_overfitting(run: Run) -> None:
    """The detector's verdict on the epochs so far; it may end the training."""
    history, detector = run.step.state.history, run.evaluation.detector
    if detector is None:
        return
    history.overfitting = detector.verdict(
        [
            Probe(epoch.fgsm_accuracy, epoch.pgd_accuracy)
            for epoch in history.epochs
            if epoch.fgsm_accuracy is not None and epoch.pgd_accuracy is not None
        ]
    )
    if history.overfitting is not None:
        _logger.warning(
            "catastrophic overfitting in epoch %d: %s", history.last.epoch, history.overfitting
        )
        if run.evaluation.stop_on_overfitting:
            history.stopped = history.overfitting
