"""The trainer: one loop for every method."""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from repsim_fast._core.files import check_writable
from repsim_fast._core.kept_memory import kept_memory
from repsim_fast._core.locks import only_writer
from repsim_fast._core.model_state import device_of, in_mode, unwrap, usable_device
from repsim_fast._core.precision import changing_weights, native_half
from repsim_fast._core.processes import Processes, local_device, processes
from repsim_fast.data import augmentation
from repsim_fast.data.augmentation import Augment
from repsim_fast.data.labelled import LabelledImages, labelled
from repsim_fast.data.loaded import LoadedBatches
from repsim_fast.data.samples import Samples
from repsim_fast.models.checkpoint import check_architecture, load_weights
from repsim_fast.models.normalized import normalizations
from repsim_fast.pruning import kept_weights, put, unmasked

from . import checkpoints, schedules
from .callback import OnEpoch
from .frozen_norms import frozen_batch_norms
from .history import History, Log
from .methods import Method
from .optimisation import Optimisation
from .plan import (
    Plan,
    build_method,
    check_classes,
    check_holdable,
    check_perturbable,
    check_smoothing,
    check_trainable,
    described,
    described_method,
)
from .progress_bar import ProgressBar
from .run import Run, train_epochs
from .schedules import Schedule
from .settings import Evaluation, Saving
from .state import TrainingState
from .step import Step

_logger = logging.getLogger(__name__)


@torch.inference_mode(False)
@torch.enable_grad()
@changing_weights()
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
    augment: str | Augment | None = None,
    optimisation: Optimisation | None = None,
    evaluation: Evaluation | None = None,
    saving: Saving | None = None,
    init: str | Path | None = None,
    on_epoch: OnEpoch | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train ``model`` in place; the same seed gives the same weights on CPU.

    Within the caller's ``torch.autocast`` forward passes are in its precision, and nothing scales
    the loss: float16 had better be ``Optimisation(autocast=...)``.

    Convolutional networks have their channels last meanwhile, where that is faster, and ReLUs
    overwrite their input where a run of the model shows that nothing else reads it. On the CPU
    batch norms take the ReLU after them along (``ops.batch_norm_relu``), and the process keeps the
    memory that a step frees until the end. Branches that a model takes later only are not seen:
    docs/training.md says which, and that a hook on the model leaves its modules as they are.

    Started by torchrun, the processes share each batch and average their gradients. Of a loader
    each goes through its own (with torch's ``DistributedSampler``, which is told the epoch), and
    all must give as many batches.

    Args:
        model: Maps images in [0, 1], cast to the dtype of its parameters, to logits. Weights are
            float32, float64 or bfloat16, and stay it.
        train_data: ``repsim_fast.data.ImageData``, a pair of tensors (images, labels), or a
            ``DataLoader`` or other iterable of such pairs with a length, trained on in the order
            in which it gives them; or ``data.mixed`` streams. A batch may also be a mapping with
            images and labels, or have the numbers of its samples as a third part. Whatever a loader
            draws from torch's global generators follows from ``seed`` and the epoch, so resuming is
            exact; what it draws from generators of its own is not. Workers begin each epoch anew,
            ``persistent_workers``, too. Labels may be soft,
            probabilities (N, n_classes), for methods whose loss takes them; attacks and accuracies
            then go by the most probable class.
        method: A name from ``methods.available()`` or a ``Method``.
        method_options: Settings of a method given by name, such as ``{"eps": 8 / 255}``; numbers
            that change, such as a radius that grows over the first third, as
            ``{"eps": Ramp(0, 8 / 255, end=0.3)}``.
        epochs: Passes over the data.
        batch_size: Images a step, over all processes, where ``train_data`` does not come in
            batches.
        lr: Peak learning rate.
        schedule: "cosine", "cyclic", "step", "constant" or a function of the fraction done.
        augment: "crop" (random shift by an eighth of the side), "crop+flip", a callable (images,
            generator) -> images, or None.
        optimisation: Optimizer, weight decay, regularisers, averages and precision.
        evaluation: Data, attack and detector of the figures of each epoch; default none.
        saving: Checkpoints, from which a training also goes on, and logs; default none.
        init: Checkpoint whose weights training begins with: a file of ``models.save_checkpoint``, a
            best.safetensors, or any other file of the model's weights that
            ``models.load_weights`` takes. A training resumes with the same weights in it only.
        on_epoch: Called as (model, record) after each epoch, with the weights that were evaluated,
            in eval mode (each module's own mode returns afterwards), and the epoch's ``Epoch``;
            under torchrun in the first process. The figures it returns
            by name, or None, become ``record.figures``, also in logs and checkpoints. It may raise
            ``StopTraining`` to end the training here. Of any other exception the epoch is kept as
            well, and a resumed training calls it for that epoch again.
        device: Where to train; default: where the model is.
        seed: Of the order of the batches, augmentation, random starts and dropout.
        progress: Show a progress bar.

    Returns:
        History with one record an epoch.

    Raises:
        ValueError: Unknown method or schedule, settings out of range, float images in 0 to 255,
            weights that cannot be trained in their dtype, labels that are no class of the model, a
            loss that is not finite, an architecture or ``init`` that is not the model's, a
            checkpoint of other settings or architecture, an unfinished training in the folder.
        TypeError: Arguments of another kind, data that hold no tensors, labels that are no
            integers, counts that are not whole, a model to save or average whose state dict has
            more than tensors.
        OSError: The checkpoint folder cannot be written to, or another training writes there.
        RuntimeError: The device does not exist, or on_epoch raised an error.
        ImportError: TensorBoard, or the package of the architecture, is not installed.

    Example:
        >>> from repsim_fast import data, models
        >>> from repsim_fast.attacks import PGD
        >>> from repsim_fast.training import Evaluation, train
        >>> network = models.build("resnet-digits", num_classes=10, in_channels=1, seed=0)
        >>> history = train(
        ...     network,
        ...     data.load("digits", "train"),
        ...     method="pgd",
        ...     method_options={"eps": 0.1, "steps": 2},
        ...     epochs=1,
        ...     evaluation=Evaluation(data.load("digits", "test", limit=100), PGD(0.1)),
        ...     progress=False,
        ... )
        >>> len(history), history.last.robust_accuracy is not None
        (1, True)
    """
    _check_kinds(optimisation, evaluation, saving, method_options, on_epoch)
    how = optimisation or Optimisation()
    evaluation, saving = evaluation or Evaluation(), saving or Saving()
    plan = Plan(
        build_method(method, method_options), epochs, batch_size, lr, schedules.get(schedule),
        augmentation.get(augment), seed,
    )  # fmt: skip
    check_smoothing(plan.method, how.label_smoothing)
    check_trainable(model, how.autocast)
    if saving.folder is not None or how.ema is not None:
        check_holdable(model)
    if saving.architecture is not None:
        check_architecture("architecture", unmasked(model), saving.architecture)
    where = _place(model, device)
    how = _with_precision(how, where)
    data = labelled(train_data, "train_data")
    if evaluation.validation:
        data, held_out = _split(data, evaluation.validation, plan.seed)
        evaluation = evaluation.held_out(held_out)
    model.to(where)
    preview = data.preview(where)
    data = data.below(check_classes(model, *preview))
    check_perturbable(model, how.awp)
    for name, images in evaluation.sets().items():
        check_classes(model, *labelled(images, f"evaluation data {name!r}").preview(where))
    digest = None if init is None else _begin_with(init, model, saving)
    state = TrainingState.begin(model, lr, how, where)
    settings = described(
        plan, how, state.optimizer, data, method_options, schedule, augment, evaluation
    )
    settings |= {"init": digest, "normalization": normalizations(model)}
    settings["built_method"] = described_method(method)
    if kept := kept_weights(model):
        settings["kept_weights"] = kept
    group = processes(where)
    with _written_alone(saving, group):
        _resume(state, saving, settings, group)
        with (
            in_mode([model], "keep"),
            frozen_batch_norms(model, how.freeze_batch_norm),
            kept_memory(where),
            _log(saving, state, group) as log,
            _bar(plan, state, data, group, shown=progress) as bar,
        ):
            _check_start(data.steps(batch_size, group), group, where)
            group.broadcast(model)
            step = Step(state, plan.method, how, where, group, preview[0])
            train_epochs(Run(plan, step, data, evaluation, saving, settings, on_epoch, log, bar))
    if state.average is not None:
        state.average.load_into(model)
    return state.history


def _check_kinds(
    optimisation: object, evaluation: object, saving: object, options: object, on_epoch: object
) -> None:
    for name, value, kind in (
        ("optimisation", optimisation, Optimisation),
        ("evaluation", evaluation, Evaluation),
        ("saving", saving, Saving),
        ("method_options", options, Mapping),
    ):
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{name} must be of {kind.__name__} or None, got {_kind(value)}")
    if on_epoch is not None and not callable(on_epoch):
        raise TypeError(f"on_epoch must be callable or None, got {_kind(on_epoch)}")


def _kind(value: object) -> str:
    return type(value).__name__


def _split(data: LabelledImages, share: float, seed: int) -> tuple[LabelledImages, Samples]:
    if isinstance(data, LoadedBatches):
        raise TypeError(
            "validation needs train_data in memory to hold images out of, got batches of a "
            f"{type(data.source).__name__}: give Evaluation its own data"
        )
    return data.split(share, seed)


def _with_precision(how: Optimisation, device: torch.device) -> Optimisation:
    if how.autocast != "auto":
        return how
    chosen = native_half(device)
    _logger.info("autocast='auto' on %s: %s", device, chosen or "none")
    return replace(how, autocast=chosen)


def _begin_with(init: str | Path, model: nn.Module, saving: Saving) -> str:
    """Load the weights; gives their digest."""
    dense, about = unmasked(model), saving.architecture
    try:
        weights = load_weights(init, model, architecture=about)
    except ValueError:
        if dense is unwrap(model):
            raise
        weights = load_weights(init, dense, architecture=about)
        put(model, weights)  # the file has not these masks, the model keeps its own
    digest = hashlib.sha256()
    for name, value in sorted(weights.items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]


def _place(model: nn.Module, device: torch.device | str | None) -> torch.device:
    if device is None:
        return local_device(device_of(model))
    usable_device(device)
    return local_device(torch.device(device))


def _written_alone(saving: Saving, group: Processes) -> contextlib.AbstractContextManager[None]:
    if saving.folder is None or not group.first:
        return contextlib.nullcontext()
    return only_writer(check_writable(saving.folder), *checkpoints.FILES)


def _resume(
    state: TrainingState, saving: Saving, settings: Mapping[str, Any], group: Processes
) -> None:
    if saving.folder is None:
        return
    path = Path(saving.folder) / checkpoints.RESUME
    if saving.resume and path.exists():
        checkpoints.load_state(path, state, settings)
    elif saving.resume is None and (far := checkpoints.unfinished(path)):
        raise ValueError(
            f"{path} is an unfinished training ({far}), which a new one would overwrite: "
            "Saving(resume=True) goes on with it, resume=False starts over"
        )
    elif saving.resume is False and group.first:
        path.unlink(missing_ok=True)  # nor may it be gone on with in place of this one


def _log(saving: Saving, state: TrainingState, group: Processes) -> Log:
    if not group.first:
        return Log(None, None)
    return Log(saving.log, saving.tensorboard, state.concluded)


def _bar(
    plan: Plan, state: TrainingState, data: LabelledImages, group: Processes, *, shown: bool
) -> ProgressBar:
    return ProgressBar(
        plan.method.name,
        plan.epochs,
        len(state.history),
        data.steps(plan.batch_size, group),
        shown=shown and group.first,
    )


def _check_start(n_batches: int, group: Processes, device: torch.device) -> None:
    counts = torch.tensor([n_batches, n_batches**2], dtype=torch.float64, device=device)
    total, squares = group.sum(counts).tolist()
    if n_batches == 0:
        raise ValueError("train_data must hold an image a process, got fewer")
    if squares * group.size != total**2:  # an unequal share would wait for the others for ever
        raise ValueError(
            f"train_data must give each of {group.size} processes as many batches, got {n_batches} "
            f"of {total:.0f} in process {group.rank}"
        )
