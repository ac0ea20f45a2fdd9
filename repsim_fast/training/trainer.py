"""The trainer: one loop for every method."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast.attacks._randomness import private_rng

from . import methods, schedules
from .evaluation import Attack, device_of, evaluate
from .history import Epoch, History, append_line
from .methods import Method
from .samples import samples
from .schedules import Schedule


def train(
    model: nn.Module,
    train_data: Any,
    *,
    method: str | Method = "standard",
    method_options: dict[str, Any] | None = None,
    epochs: int = 10,
    batch_size: int = 128,
    lr: float = 0.1,
    schedule: str | Schedule = "cosine",
    momentum: float = 0.9,
    weight_decay: float = 5e-4,
    eval_data: Any = None,
    eval_attack: Attack | None = None,
    log_path: str | Path | None = None,
    device: torch.device | str | None = None,
    seed: int = 0,
    progress: bool = True,
) -> History:
    """Train ``model`` in place by SGD with momentum; the same seed gives the same weights on CPU.

    Args:
        model: Maps images in [0, 1] to logits.
        train_data: ``repsim_fast.data.ImageData`` or a pair of tensors (images, labels).
        method: A name from ``methods.available()`` or a ``Method``.
        method_options: Settings of a method given by name, such as ``{"eps": 8 / 255}``.
        epochs: Passes over the data.
        batch_size: Images a step.
        lr: Peak learning rate.
        schedule: "cosine", "cyclic", "step", "constant" or a function of the fraction done.
        momentum: Of SGD.
        weight_decay: L2 penalty, on every parameter.
        eval_data: Data evaluated after each epoch.
        eval_attack: Attack for its robust accuracy.
        log_path: JSON-lines file; one line is appended after each epoch.
        device: Where to train; default: where the model is.
        seed: Of the order of the batches, random starts and dropout.
        progress: Show a progress bar.

    Returns:
        History with one record an epoch.

    Raises:
        ValueError: Unknown method or schedule, settings out of range, a loss that is not finite.
    """
    if epochs < 1 or batch_size < 1 or not lr > 0:
        raise ValueError(
            "epochs and batch_size must be at least 1 and lr positive, "
            f"got {epochs}, {batch_size}, {lr}"
        )
    held = samples(train_data, "train_data")
    plan = schedules.get(schedule)
    if isinstance(method, str):
        method = methods.build(method, **(method_options or {}))
    where = device_of(model) if device is None else torch.device(device)
    model.to(where)
    optimizer = torch.optim.SGD(
        model.parameters(), lr=lr, momentum=momentum, weight_decay=weight_decay
    )
    steps = -(-len(held) // batch_size)
    history = History()
    was_training = model.training
    try:
        with _bar(epochs * steps, progress, method.name) as bar:
            for epoch in range(epochs):
                started = time.perf_counter()
                generator = torch.Generator().manual_seed(_epoch_seed(seed, epoch))
                model.train()
                total = torch.zeros((), dtype=torch.float64, device=where)
                right = torch.zeros((), dtype=torch.int64, device=where)
                with private_rng(where, _epoch_seed(seed, epoch)):
                    for index, (x, y) in enumerate(
                        held.batches(batch_size, where, generator=generator)
                    ):
                        rate = lr * plan((epoch + index / steps) / epochs)
                        for group in optimizer.param_groups:
                            group["lr"] = rate
                        loss, logits = _step(model, method, optimizer, x, y, generator)
                        total += loss.detach() * len(y)
                        right += (logits.argmax(1) == y).sum()
                        bar.update()
                mean = total.item() / len(held)
                if not math.isfinite(mean):
                    raise ValueError(f"loss is {mean} in epoch {epoch}: lower lr (now {lr})")
                scores = (
                    None
                    if eval_data is None
                    else evaluate(model, eval_data, eval_attack, device=where)
                )
                record = Epoch(
                    epoch=epoch,
                    loss=mean,
                    train_accuracy=right.item() / len(held),
                    learning_rate=rate,
                    seconds=time.perf_counter() - started,
                    clean_accuracy=None if scores is None else scores.clean,
                    robust_accuracy=None if scores is None else scores.robust,
                )
                history.epochs.append(record)
                if log_path is not None:
                    append_line(Path(log_path), record)
                bar.set_postfix(_summary(record))
    finally:
        model.train(was_training)
    return history


def _step(
    model: nn.Module,
    method: Method,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Perturb, descend; gives the loss and the logits it was computed from."""
    perturbed = method.perturb(model, x, y, generator)
    loss, logits = method.loss(model, x, y, perturbed)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return loss, logits


def _epoch_seed(seed: int, epoch: int) -> int:
    # Every epoch's random numbers follow from these two alone, so a resumed training needs no
    # generator state. The multiplier (Knuth's, odd) keeps neighbouring seeds' epochs apart.
    return (seed * 2654435761 + epoch) % 2**63


def _summary(record: Epoch) -> dict[str, str]:
    figures = {
        "loss": record.loss,
        "train": record.train_accuracy,
        "clean": record.clean_accuracy,
        "robust": record.robust_accuracy,
    }
    return {name: f"{value:.3f}" for name, value in figures.items() if value is not None}


def _bar(total: int, shown: bool, name: str) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc=f"train ({name})", unit="batch", disable=not shown)
