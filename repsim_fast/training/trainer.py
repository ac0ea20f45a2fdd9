"""The trainer: one loop for every method."""

from __future__ import annotations

import contextlib
import copy
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repsim_fast._core.batch_checks import check_logits
from repsim_fast._core.borrow import borrow
from repsim_fast._core.checks import check_autocast
from repsim_fast._core.files import check_writable
from repsim_fast._core.model_state import usable_device
from repsim_fast._core.processes import Processes, local_device, processes
from repsim_fast._core.randomness import private_rng
from repsim_fast.analysis.selectivity import SelectivityRegulariser
from repsim_fast.attacks.losses import margin
from repsim_fast.attacks.objective import Ascent
from repsim_fast.data import augment_by_name as augmentation
from repsim_fast.data.augment_by_name import Augment
from repsim_fast.data.samples import Samples, samples
from repsim_fast.models.checkpoint import check_architecture

from . import checkpoints, methods, schedules
from .callback import OnEpoch, ask
from .ema import WeightAverage
from .evaluation import Accuracy, Attack, device_of, evaluate
from .history import Epoch, History, Log
from .methods import Batch, Method, Progress
from .overfitting import OverfittingDetector, Probe
from .schedules import Schedule
from .step import Step

_logger = logging.getLogger(__name__)

# Batches between two figures in the progress bar: reading one waits for the device.
_BAR_EVERY = 20
_ARCHITECTURE = {"name", "num_classes", "in_channels"}


@torch.inference_mode(False)
@torch.enable_grad()
def train(
    model: nn.Module,
    train_data: Any,
    *,
    method: str | Method = "standard",
    method_options: Mapping[str, Any] | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float = 0.1,
    schedule: str | Schedule = "cosine",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    augment: str | Augment | None = None,
    regularisers: Sequence[SelectivityRegulariser] = (),
    awp: float = 0.0,
    awp_warmup: int = 0,
    ema: float | None = None,
    autocast: torch.dtype | None = None,
    eval_data: Any = None,
    eval_attack: Attack | None = None,
    eval_every: int = 1,
    detector: OverfittingDetector | None = None,
    stop_on_overfitting: bool = False,
    on_epoch: OnEpoch | None = None,
    checkpoint: str | Path | None = None,
    architecture: Mapping[str, Any] | None = None,
    resume: bool = False,
    log_path: str | Path | None = None,
    tensorboard: str | Path | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train ``model`` in place by SGD with momentum; the same seed gives the same weights on CPU.

    Started by torchrun, the processes share each batch and average their gradients.

    Args:
        model: Maps images in [0, 1], cast to the dtype of its parameters, to logits. Weights are
            float32, float64 or bfloat16, and stay it.
        train_data: ``repsim_fast.data.ImageData`` or a pair of tensors (images, labels).
        method: A name from ``methods.available()`` or a ``Method``.
        method_options: Settings of a method given by name, such as ``{"eps": 8 / 255}``.
        epochs: Passes over the data.
        batch_size: Images a step, over all processes.
        lr: Peak learning rate.
        schedule: "cosine", "cyclic", "step", "constant" or a function of the fraction done.
        momentum: Of SGD.
        weight_decay: L2 penalty, on every parameter.
        augment: "crop" (random shift by an eighth of the side), "crop+flip", a callable (images,
            generator) -> images, or None.
        regularisers: Penalties on activations, added to the method's loss.
        awp: Relative size of the adversarial weight perturbation, 0 for none.
        awp_warmup: Epochs before it begins.
        ema: Decay of an exponential moving average of the weights. The average is what is
            evaluated, saved for use and left in the model at the end.
        autocast: torch.bfloat16 or torch.float16 for forward passes (float16 with loss scaling).
        eval_data: Data evaluated after each ``eval_every``-th epoch and the last.
        eval_attack: Attack for its robust accuracy. A copy is used each time, so that a seeded
            attack draws the same random starts in every epoch.
        eval_every: Epochs between evaluations.
        detector: Catastrophic-overfitting detector, asked after each epoch.
        stop_on_overfitting: End the training when it finds something.
        on_epoch: Called as (model, record) after each epoch, with the weights that were evaluated
            and the epoch's ``Epoch``; under torchrun in the first process. The figures it returns
            by name, or None, become ``record.figures``, also in logs and checkpoints. It may raise
            ``StopTraining`` to end the training here. Of any other exception the epoch is kept as
            well, and a resumed training calls it for that epoch again.
        checkpoint: Folder for best.safetensors and last.safetensors (weights for use) and
            resume.safetensors, each replaced as a whole after each epoch. "best" is the epoch of
            the highest robust (else clean) accuracy.
        architecture: name, num_classes and in_channels of ``models.build``: with them the weights
            are files that ``models.load_checkpoint`` reads.
        resume: Go on from resume.safetensors, where there is one; on CPU the result is that of an
            uninterrupted training, bit for bit.
        log_path: JSON-lines file with one line an epoch.
        tensorboard: Folder for TensorBoard's event files.
        device: Where to train; default: where the model is.
        seed: Of the order of the batches, augmentation, random starts and dropout.
        progress: Show a progress bar.

    Returns:
        History with one record an epoch.

    Raises:
        ValueError: Unknown method or schedule, settings out of range, weights that cannot be
            trained in their dtype, labels that are no class of the model, a loss that is not
            finite, an architecture that is not the model's, a checkpoint of other settings or
            architecture.
        TypeError: Data that hold no tensors, or labels that are no integers.
        OSError: The checkpoint folder cannot be written to.
        RuntimeError: The device does not exist, or on_epoch raised an error.
        ImportError: TensorBoard, or the package of the architecture, is not installed.
    """
    if epochs < 1 or batch_size < 1 or eval_every < 1:
        raise ValueError(
            "epochs, batch_size and eval_every must be at least 1, "
            f"got {epochs}, {batch_size}, {eval_every}"
        )
    if not lr > 0 or not awp >= 0:
        raise ValueError(f"lr must be positive and awp non-negative, got {lr} and {awp}")
    check_autocast(autocast)
    if resume and checkpoint is None:
        raise ValueError("resume needs the checkpoint folder to resume from")
    if stop_on_overfitting and detector is None:
        raise ValueError("stop_on_overfitting needs a detector")
    if isinstance(method, str):
        method = methods.build(method, **(method_options or {}))
    elif not isinstance(method, Method):
        raise TypeError(f"method must be a name or a Method, got {type(method).__name__}")
    elif method_options:
        raise ValueError("method_options go with a method given by name")
    if architecture is not None and (lacking := _ARCHITECTURE - architecture.keys()):
        raise ValueError(f"architecture must have {sorted(_ARCHITECTURE)}, lacks {sorted(lacking)}")
    if not isinstance(model, nn.Module):
        raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError("model must have a parameter to train, got none that requires a gradient")
    _check_weights(model, autocast)
    if architecture is not None:
        check_architecture("architecture", model, architecture)
    if device is not None:
        usable_device(device)
    where = local_device(device_of(model) if device is None else torch.device(device))
    held = samples(train_data, "train_data")
    model.to(where)
    _check_labels(model, held, where)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
    )
    scaler = torch.amp.GradScaler(where.type, enabled=autocast == torch.float16)
    average = None if ema is None else WeightAverage(model, ema)
    folder = None if checkpoint is None else Path(checkpoint)
    config = {
        "method": method.name,
        "method_options": {name: repr(value) for name, value in (method_options or {}).items()},
        "schedule": schedule if isinstance(schedule, str) else "custom",
        "augment": augment if isinstance(augment, str | None) else "custom",
        "regularisers": [repr(vars(regulariser)) for regulariser in regularisers],
        "autocast": str(autocast),
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "awp": [awp, awp_warmup],
        "ema": ema,
        "seed": seed,
        "samples": len(held),
    }
    history, answered = History(), True
    if resume and folder is not None and (folder / checkpoints.RESUME).exists():
        history, answered = checkpoints.load_state(
            folder / checkpoints.RESUME, model, optimizer, average, scaler, config
        )
    unanswered = None if answered else history.epochs.pop()
    step = Step(
        model, method, optimizer, scaler, tuple(regularisers), awp, where, autocast, average
    )
    plan = schedules.get(schedule)
    crop = augmentation.get(augment)
    was_training = model.training

    def conclude(record: Epoch) -> None:
        """Ask the caller, then keep the epoch, whatever the answer is."""
        with _averaged(average, model):
            answer = ask(on_epoch, model, record, group, where)
            record = replace(record, figures=answer.figures)
            history.epochs.append(record)
            if folder is not None and group.first:
                for name in ("best", "last"):
                    if name == "last" or history.best is record:
                        checkpoints.save_weights(
                            folder / f"{name}.safetensors", model, architecture, record
                        )
        log.write(record)
        bar.set_postfix(_summary(record))
        if folder is not None and group.first:
            checkpoints.save_state(
                folder / checkpoints.RESUME, model, optimizer, average, scaler, history, config,
                answered=answer.final,
            )  # fmt: skip
        kept = (
            "nothing is saved: checkpoint is None"
            if folder is None
            else (f"everything is saved in {folder}: resume asks it again")
        )
        answer.raise_error(record.epoch, kept)
        history.stopped = answer.stop
        if detector is not None:
            history.overfitting = detector.verdict(checkpoints.probes(history))
            if history.overfitting is not None:
                _logger.warning(
                    "catastrophic overfitting in epoch %d: %s", record.epoch, history.overfitting
                )
                if stop_on_overfitting:
                    history.stopped = history.overfitting

    with (
        processes(where) as group,
        Log(
            log_path if group.first else None, tensorboard if group.first else None, history.epochs
        ) as log,
        _bar(
            epochs, held.steps(batch_size, group), progress and group.first, method, history
        ) as bar,
    ):
        if held.steps(batch_size, group) == 0:
            raise ValueError(f"train_data must hold an image a process, got {len(held)}")
        if folder is not None and group.first:
            check_writable(folder)
        group.broadcast(model)
        try:
            if unanswered is not None:
                conclude(unanswered)
            while len(history) < epochs and history.stopped is None:
                epoch = len(history)
                started = time.perf_counter()
                step.awp = awp if epoch >= awp_warmup else 0.0
                loss, accuracy, rate = _train_epoch(
                    step, held, batch_size, epoch, epochs, lr, plan, crop,
                    seed, group, bar,
                )  # fmt: skip
                if not math.isfinite(loss):
                    raise ValueError(f"loss is {loss} in epoch {epoch}: lower lr (now {lr})")
                group.broadcast(model)
                due = (epoch + 1) % eval_every == 0 or epoch == epochs - 1
                with _averaged(average, model):
                    scores = (
                        _evaluate(model, eval_data, eval_attack, where, group)
                        if eval_data is not None and due
                        else None
                    )
                    probe = None if detector is None else detector.probe(model, held, where)
                seconds = time.perf_counter() - started
                conclude(_record(epoch, loss, accuracy, rate, seconds, scores, probe))
        except KeyboardInterrupt:
            if folder is not None and group.first:
                _logger.warning(
                    "interrupted after %d of %d epochs: go on with resume=True and "
                    "checkpoint=%r (command line: --resume)",
                    len(history), epochs, str(folder),
                )  # fmt: skip
            raise
        finally:
            model.train(was_training)
    if average is not None:
        model.load_state_dict(average.state)
    return history


def _averaged(
    average: WeightAverage | None, model: nn.Module
) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext() if average is None else average.applied(model)


def _train_epoch(
    step: Step,
    data: Samples,
    batch_size: int,
    epoch: int,
    epochs: int,
    lr: float,
    plan: Schedule,
    augment: Augment,
    seed: int,
    group: Processes,
    bar: Any,
) -> tuple[float, float, float]:
    """One pass over the data; gives mean loss, accuracy and the last learning rate."""
    device, method = step.device, step.method
    # The order of the batches is the same in all processes, the noise is not.
    order = torch.Generator().manual_seed(_seed(seed, epoch, 0))
    generator = torch.Generator().manual_seed(_seed(seed, epoch, 1 + group.rank))
    # Sum of the losses, correct predictions, predictions.
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    n_steps = data.steps(batch_size, group)
    rate = lr
    method.start_epoch()
    step.model.train()
    with private_rng(device, _seed(seed, epoch, 1 + group.rank)):
        for index, (x, y, weight) in enumerate(data.shuffled(batch_size, device, order, group)):
            x = augment(x, generator)
            for replay in range(method.replays):
                done = (epoch + (index + replay / method.replays) / n_steps) / epochs
                progress = Progress(epoch, epochs, done, first=index == replay == 0)
                rate = lr * plan(done)
                for parameters in step.optimizer.param_groups:
                    parameters["lr"] = rate
                loss, logits = step(Batch(x, y, generator, progress), weight, group)
            n = len(y)
            sums += torch.stack((loss * n, (logits.argmax(1) == y).sum(), loss.new_tensor(n)))
            bar.update()
            if index % _BAR_EVERY == _BAR_EVERY - 1 and not bar.disable:
                total, right, count = sums.tolist()
                bar.set_postfix(loss=f"{total / count:.3f}", train=f"{right / count:.3f}")
    total, right, count = group.sum(sums).tolist()
    return total / count, right / count, rate


def _evaluate(
    model: nn.Module,
    data: Any,
    attack: Attack | None,
    device: torch.device,
    group: Processes,
) -> Accuracy:
    """Accuracies over all processes, each on its share of the data."""
    held = samples(data, "eval_data")
    mine = Samples(group.share(held.images), group.share(held.labels))
    if not len(mine):
        mine = held  # fewer images than processes: all of them do the same
    scores = evaluate(model, mine, copy.deepcopy(attack), device=device)
    counts = torch.tensor(
        [scores.clean * scores.n, (scores.robust or 0.0) * scores.n, scores.n],
        dtype=torch.float64,
        device=device,
    )
    clean, robust, n = group.sum(counts).tolist()
    return Accuracy(clean / n, None if scores.robust is None else robust / n, int(n))


def _check_weights(model: nn.Module, autocast: torch.dtype | None) -> None:
    """Dtypes that train without, or with, the loss scaling that autocast brings."""
    trained = {p.dtype: name for name, p in model.named_parameters() if p.requires_grad}
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


def _check_labels(model: nn.Module, data: Samples, device: torch.device) -> None:
    """Logits, and labels among their classes, before the first epoch rather than in it."""
    with borrow(model, device=device, seed=0), torch.no_grad():
        x, _ = data.batch(slice(0, 1), device)
        logits = Ascent(model, margin).logits(x)
        span = torch.stack((data.labels.min(), data.labels.max())).to(device, torch.int64)
        check_logits(logits.expand(2, -1), span)


def _seed(seed: int, epoch: int, stream: int) -> int:
    """Seed of one of an epoch's streams.

    Every random number of an epoch follows from these, so a resumed training needs no generator
    state. Odd multipliers (Knuth's, and the golden ratio's) keep neighbours apart.
    """
    return (seed * 2654435761 + epoch * 40503 + stream * 0x9E3779B97F4A7C15) % 2**63


def _record(
    epoch: int,
    loss: float,
    accuracy: float,
    rate: float,
    seconds: float,
    scores: Accuracy | None,
    probe: Probe | None,
) -> Epoch:
    return Epoch(
        epoch=epoch,
        loss=loss,
        train_accuracy=accuracy,
        learning_rate=rate,
        seconds=seconds,
        clean_accuracy=None if scores is None else scores.clean,
        robust_accuracy=None if scores is None else scores.robust,
        fgsm_accuracy=None if probe is None else probe.fgsm,
        pgd_accuracy=None if probe is None else probe.pgd,
    )


def _summary(record: Epoch) -> dict[str, str]:
    figures = {
        "loss": record.loss,
        "train": record.train_accuracy,
        "clean": record.clean_accuracy,
        "robust": record.robust_accuracy,
    }
    return {name: f"{value:.3f}" for name, value in figures.items() if value is not None}


def _bar(epochs: int, steps: int, shown: bool, method: Method, history: History) -> Any:
    from tqdm.auto import tqdm

    return tqdm(
        total=epochs * steps,
        initial=len(history) * steps,
        desc=f"train ({method.name})",
        unit="batch",
        disable=not shown,
    )
