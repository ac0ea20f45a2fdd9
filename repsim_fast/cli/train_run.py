"""What `repsim-fast train` does one after the other, and says of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, SupportsFloat

import torch
import typer
from torch import nn
from tqdm import tqdm

from repsim_fast import models, pruning
from repsim_fast._core.ramp import Ramp
from repsim_fast.data import ImageData
from repsim_fast.models.state_files import split_key
from repsim_fast.training import (
    Accuracy,
    CollapseGuard,
    Diagnostics,
    Epoch,
    Evaluation,
    Optimisation,
    Saving,
)
from repsim_fast.training import train as train_network

from . import ramps
from .train_folder import BEFORE_COLLAPSE
from .train_measurement import Measurement, figures_of
from .train_setup import Setup

TEST_STEPS = 20


def progress() -> bool:
    """Whether someone watches."""
    return sys.stderr.isatty()


def build(name: str, images: ImageData, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    """The untrained network, and what its checkpoint says of it."""
    architecture: dict[str, Any] = {
        "name": name,
        "num_classes": len(images.classes),
        "in_channels": images.images.shape[1],
    }
    return models.build(**architecture, seed=seed), architecture


def prune_again(network: nn.Module, init: Path | None, asked: bool | None) -> dict[str, Any]:
    """Masks of what is 0 in the checkpoint begun with, and what its header says of its pruning.

    Raises:
        ValueError: Asked for without a checkpoint, or no weight is 0.
    """
    if init is None:
        if asked:
            raise ValueError("--keep-zeros: say whose with --init")
        return {}
    try:
        of_init = models.checkpoint_header(split_key(init)[0]).get("pruned")
    except ValueError:  # weights alone
        of_init = None
    if not (of_init if asked is None else asked):
        return {}
    models.load_weights(init, network)
    pruning.hold_zeros(network)
    left = pruning.report(network)
    typer.echo(f"{left.kept:,} of {left.weights:,} weights are left and trained, the others stay 0")
    return {} if of_init is None else {"pruned": of_init}


def train(
    network: nn.Module,
    images: Any,
    setup: Setup,
    evaluation: Evaluation,
    saving: Saving,
    watch: Diagnostics | None,
    init: Path | None,
    device: torch.device,
    seed: int,
    restore: bool,
) -> None:
    """Train it by the set-up; with ``restore``, back to before a collapse."""
    epochs = setup.settings["epochs"]

    evaluated = "held out" if evaluation.validation else "test"
    sets_have_names = isinstance(evaluation.data, Mapping)

    def show(model: nn.Module, record: Epoch) -> Mapping[str, SupportsFloat]:
        figures = {} if watch is None else watch(model, record)
        # Keeps a progress bar intact.
        tqdm.write(_epoch_line(record, epochs, None if sets_have_names else evaluated, figures))
        return figures

    guard = None
    if restore and evaluation.detector is not None and saving.folder is not None:
        kept = Path(saving.folder) / BEFORE_COLLAPSE
        guard = CollapseGuard(evaluation.detector, restore=True, kept=kept, then=show)
    train_network(
        network,
        images,
        method=setup.method,
        method_options=setup.method_options,
        **setup.settings,
        optimisation=setup.optimisation,
        evaluation=evaluation,
        saving=saving,
        init=init,
        on_epoch=show if guard is None else guard,
        device=device,
        seed=seed,
        progress=progress(),
    )
    if guard is not None and guard.collapsed is not None:
        typer.echo(f"epoch {guard.collapsed + 1}: {guard.verdict}")
        if guard.good is not None:
            guard.restore_into(network)  # over an average of weights, too
            typer.echo(f"back to the weights of epoch {guard.good + 1}")


def save(
    out: Path,
    network: nn.Module,
    architecture: dict[str, Any],
    setup: Setup,
    accuracy: Accuracy,
    **about: Any,
) -> None:
    """Write the checkpoint."""
    schedule = setup.settings["schedule"]
    models.save_checkpoint(
        out,
        network,
        **architecture,
        method=setup.method,
        method_options={
            name: ramps.shown(value) if isinstance(value, Ramp) else value
            for name, value in setup.method_options.items()
        },
        **{name: setup.settings[name] for name in ("epochs", "batch_size", "lr", "augment")},
        schedule=schedule if isinstance(schedule, str) else "the preset's",
        optimisation=_described(setup.optimisation),
        ema=setup.optimisation.ema,
        threads=torch.get_num_threads(),
        clean_accuracy=accuracy.clean,
        robust_accuracy=accuracy.robust,
        **about,
    )


def _described(how: Optimisation) -> dict[str, Any]:
    """Its settings as JSON holds them."""
    settings = {field.name: getattr(how, field.name) for field in fields(how)}
    settings["regularisers"] = [repr(regulariser) for regulariser in how.regularisers]
    settings["autocast"] = None if how.autocast is None else str(how.autocast)
    return settings


def _epoch_line(
    epoch: Epoch, epochs: int, evaluated: str | None, further: Mapping[str, SupportsFloat]
) -> str:
    """``evaluated`` is what the main accuracy is of, None where the sets have names."""
    main = {} if evaluated is None else {evaluated: epoch.clean_accuracy}
    if not epoch.accuracies:
        main["attacked"] = epoch.robust_accuracy
    figures = {
        "loss": epoch.loss,
        "train": epoch.train_accuracy,
        **main,
        **epoch.accuracies,
        **{name: float(value) for name, value in further.items()},
    }
    return (
        f"epoch {epoch.epoch + 1:>{len(str(epochs))}}/{epochs}  "
        + figures_of({name: value for name, value in figures.items() if value is not None})
        + f"  {epoch.seconds:.1f} s"
    )


def by_name(scores: Accuracy) -> dict[str, float]:
    """Clean accuracy, and that under each attack."""
    robust = {} if scores.robust is None else {"attacked": scores.robust}
    return {"clean": scores.clean, **(scores.under or robust)}


def show_accuracy(accuracy: Accuracy, against: Measurement) -> None:
    """Print clean and robust accuracy."""
    low, high = accuracy.interval()
    typer.echo(
        f"\nclean accuracy   {accuracy.clean:.3f} (95 % interval {low:.3f} to {high:.3f}, "
        f"{accuracy.n:,} test images)"
    )
    low, high = accuracy.interval(robust=True)
    typer.echo(
        f"robust accuracy  {accuracy.robust:.3f} (95 % interval {low:.3f} to {high:.3f}, "
        f"{against.first().described(TEST_STEPS)})\n"
    )
