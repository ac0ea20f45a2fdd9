"""One pass over the training data."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from repsim_fast._core.memory_format import laid_out
from repsim_fast._core.model_state import begin_training
from repsim_fast._core.randomness import private_rng
from repsim_fast.data.labelled import LabelledImages
from repsim_fast.data.labels import classes_of

from .methods import Method, Progress, TrainingBatch
from .plan import Plan
from .progress_bar import ProgressBar
from .step import Step


class Pass(NamedTuple):
    """What one pass came to: mean loss, accuracy on its images, last learning rate."""

    loss: float
    accuracy: float
    rate: float


def train_epoch(step: Step, data: LabelledImages, plan: Plan, epoch: int, bar: ProgressBar) -> Pass:
    """Train on every image once."""
    device, group = step.device, step.group
    # The order of the batches is the same in all processes, the noise is not.
    order_seed, own_seed = plan.stream(epoch, 0), plan.stream(epoch, 1 + group.rank)
    noise = torch.Generator().manual_seed(own_seed)
    n_batches = data.steps(plan.batch_size, group)
    # Sum of the losses, correct predictions, predictions.
    sums = torch.zeros(3, dtype=torch.float64, device=device)
    begin_training(step.state.model)
    with contextlib.ExitStack() as stack:
        # A loader's own order and augmentation follow from the global generators, seeded here.
        stack.enter_context(private_rng(device, own_seed))
        batches = data.epoch(epoch, plan.batch_size, device, order_seed, group)
        first = list(itertools.islice(batches, 1))
        n = len(first[0][0]) if first else 1
        layout = stack.enter_context(step.fastest_form(n))
        step.state.lay_out()
        buffers = step.finite_buffers()
        for index, (x, y, weight) in enumerate(itertools.chain(first, batches)):
            x = laid_out(plan.augment(x, noise), layout)
            soft, classes = _soft(plan.method, y), classes_of(y)
            for progress in _replays(plan, epoch, index, n_batches):
                step.set_rate(plan.schedule(progress.fraction))
                batch = TrainingBatch(x, classes, noise, progress, soft, step.how.label_smoothing)
                with _named(batch):
                    loss, logits = step(batch, weight)
            sums += _counts(loss, logits, classes)
            if index == n_batches - 1:
                step.check_outcome(batch, buffers)
            bar.advance(sums)
    total, right, count = group.sum(sums).tolist()
    return Pass(total / count, right / count, step.rate)


@contextlib.contextmanager
def _named(batch: TrainingBatch) -> Iterator[None]:
    """Say which batch it is that batch norms cannot train on."""
    try:
        yield
    except ValueError as error:
        if len(batch.x) > 1 or "more than 1 value per channel" not in str(error):
            raise
        at = batch.progress
        raise ValueError(
            f"train_data: batch {at.batch} of epoch {at.epoch} (both from 0) has one sample, on "
            "which a batch norm cannot train: leave it out, with drop_last=True of a DataLoader"
        ) from error


def _replays(plan: Plan, epoch: int, index: int, n_batches: int) -> Iterator[Progress]:
    """How far the training is at each of a batch's optimizer steps."""
    for replay in range(plan.method.replays):
        batches_done = index + replay / plan.method.replays
        fraction = (epoch + batches_done / n_batches) / plan.epochs
        yield Progress(epoch, plan.epochs, fraction, first=index == replay == 0, batch=index)


def _soft(method: Method, labels: Tensor) -> Tensor | None:
    """The labels, if they are soft.

    Raises:
        ValueError: The method takes none.
    """
    if labels.ndim == 1:
        return None
    if not method.soft_labels:
        raise ValueError(
            f"train_data: method {method.name!r} needs labels of one class each, (N,), got soft "
            f"labels {tuple(labels.shape)}"
        )
    return labels


def _counts(loss: Tensor, logits: Tensor, y: Tensor) -> Tensor:
    n = len(y)
    return torch.stack((loss * n, (logits.argmax(1) == y).sum(), loss.new_tensor(n)))
