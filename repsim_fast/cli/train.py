"""`repsim-fast train`: a network from images to a checkpoint."""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import torch
import typer
from torch import nn
from tqdm import tqdm

from repsim_fast import models
from repsim_fast.data import ImageData
from repsim_fast.training import (
    Accuracy,
    Epoch,
    Evaluation,
    Optimisation,
    Saving,
    evaluate,
    methods,
)
from repsim_fast.training import train as train_network
from repsim_fast.training.checkpoints import RESUME, mark

from .option_groups import grouped
from .options import (
    DataSpec,
    Device,
    Seed,
    Size,
    Threads,
    choose_autocast,
    choose_device,
    describe,
)
from .threads import choose_threads
from .train_folder import LOG, MARK, resumable, written_alone
from .train_options import (
    VALIDATION,
    CourseOptions,
    EvaluationOptions,
    Init,
    Limit,
    MethodOptions,
    ModelName,
    OptimisationOptions,
    Out,
    Preset,
    Resume,
    Tensorboard,
)
from .train_setup import (
    Measurement,
    Setup,
    detection,
    measurement,
    named,
    of_options,
    of_recipe,
    typed_options,
)

TEST_STEPS = 20


@grouped
def train(
    context: typer.Context,
    data: DataSpec,
    out: Out,
    *,
    model: ModelName = None,
    init: Init = None,
    preset: Preset = None,
    method: MethodOptions,
    course: CourseOptions,
    optimisation: OptimisationOptions,
    measured: EvaluationOptions,
    size: Size = None,
    limit: Limit = None,
    tensorboard: Tensorboard = None,
    resume: Resume = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Train a network, standard or robust, and measure its clean and robust accuracy.

    Robust accuracy is the share of test images that stay right under a PGD attack of radius --eps.
    Beside FILE, a folder FILE.training keeps a log of all epochs (log.jsonl), the best epoch's
    weights, and what --resume needs: Ctrl-C or a crash costs one epoch at most. The best epoch is
    chosen by training images that are held out (--validation), not by the test images.

    \b
    Examples:
      repsim-fast train --data digits --model resnet-digits --out standard.safetensors
      repsim-fast train --data cifar10:data --model wrn-28-4 --method pgd --eps 8/255 \\
          --epochs 30 --augment crop+flip --out robust.safetensors
    """
    name = named(model, init, preset)
    if name is not None and preset is None:
        setup = of_options(name, method, course, optimisation)
    else:
        typed = typed_options(context)
        setup = of_recipe(str(preset), name, method, course, optimisation, typed)
    against = measurement(setup, measured)
    validation = measured.validation
    if validation is None:
        validation = VALIDATION if preset is None else 0.0
    where, threads_used = choose_device(device), choose_threads(threads)
    mixed = choose_autocast(optimisation.autocast, where)
    setup = setup.with_autocast(mixed)
    precision = None if mixed is None else str(mixed).removeprefix("torch.")
    with written_alone(out, resume) as folder:
        images = _load(data, "train", size, limit, seed)
        unseen = _load(data, "test", size, measured.test_limit, seed)
        network, architecture = _build(setup.model, images, seed)
        typer.echo(
            f"training {setup.model} ({sum(p.numel() for p in network.parameters()):,} "
            f"parameters) on {describe(images)}; device {where}, {threads_used}, "
            f"autocast {precision or 'none'}"
        )
        robust = methods.build(setup.method, **setup.method_options).eps is not None
        evaluation = Evaluation(
            None if validation else unseen,
            against.attack(measured.eval_steps, seed) if robust else None,
            measured.eval_every,
            validation=validation,
            **detection(setup, measured),
        )
        saving = Saving(
            folder, architecture, resume=resume is True, log=folder / LOG, tensorboard=tensorboard
        )
        with resumable(out):
            _train(network, images, setup, evaluation, saving, init, where, seed)
            accuracy = evaluate(
                network, unseen, against.attack(TEST_STEPS, seed), progress=_progress()
            )
        about: dict[str, Any] = {
            "preset": preset,
            "init": None if init is None else str(init),
            "autocast": precision,
            "seed": seed,
            "data": describe(images),
            "validation": validation,
            "attack": f"PGD, {TEST_STEPS} steps, {against}, {accuracy.n} test images",
        }
        about[MARK] = mark(folder / RESUME)
        _save(out, network, architecture, setup, accuracy, classes=list(images.classes), **about)
    _show_accuracy(accuracy, against)
    typer.echo(f"wrote {out} (and {folder} with log, best epoch and state for --resume)")


def _progress() -> bool:
    return sys.stderr.isatty()


def _load(data: str, split: str, size: int | None, limit: int | None, seed: int) -> ImageData:
    from repsim_fast.data import load

    return load(data, split, size=size, limit=limit, seed=seed, progress=_progress())


def _build(name: str, images: ImageData, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    architecture: dict[str, Any] = {
        "name": name,
        "num_classes": len(images.classes),
        "in_channels": images.images.shape[1],
    }
    return models.build(**architecture, seed=seed), architecture


def _train(
    network: nn.Module,
    images: ImageData,
    setup: Setup,
    evaluation: Evaluation,
    saving: Saving,
    init: Path | None,
    device: torch.device,
    seed: int,
) -> None:
    epochs = setup.settings["epochs"]

    def show(_: nn.Module, record: Epoch) -> None:
        # Keeps a progress bar intact.
        tqdm.write(_epoch_line(record, epochs, "held out" if evaluation.validation else "test"))

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
        on_epoch=show,
        device=device,
        seed=seed,
        progress=_progress(),
    )


def _save(
    out: Path,
    network: nn.Module,
    architecture: dict[str, Any],
    setup: Setup,
    accuracy: Accuracy,
    **about: Any,
) -> None:
    schedule = setup.settings["schedule"]
    models.save_checkpoint(
        out,
        network,
        **architecture,
        method=setup.method,
        method_options=setup.method_options,
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


def _epoch_line(epoch: Epoch, epochs: int, evaluated: str) -> str:
    figures = {
        "loss": epoch.loss,
        "train": epoch.train_accuracy,
        evaluated: epoch.clean_accuracy,
        "attacked": epoch.robust_accuracy,
    }
    return (
        f"epoch {epoch.epoch + 1:>{len(str(epochs))}}/{epochs}  "
        + "  ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None)
        + f"  {epoch.seconds:.1f} s"
    )


def _show_accuracy(accuracy: Accuracy, against: Measurement) -> None:
    low, high = accuracy.interval()
    typer.echo(
        f"\nclean accuracy   {accuracy.clean:.3f} (95 % interval {low:.3f} to {high:.3f}, "
        f"{accuracy.n:,} test images)"
    )
    low, high = accuracy.interval(robust=True)
    typer.echo(
        f"robust accuracy  {accuracy.robust:.3f} (95 % interval {low:.3f} to {high:.3f}, PGD with "
        f"{TEST_STEPS} steps, {against})\n"
    )
