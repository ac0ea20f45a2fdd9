"""`repsim-fast train`: a network from images to a checkpoint."""

from __future__ import annotations

import contextlib
import inspect
import logging
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import nn
from tqdm import tqdm

from repsim_fast import models
from repsim_fast._core.files import check_writable
from repsim_fast.attacks import PGD
from repsim_fast.training import Accuracy, Epoch, evaluate, methods, recipes
from repsim_fast.training import train as train_network

from .errors import Interrupted
from .options import (
    DEFAULT_EPS,
    Autocast,
    DataSpec,
    Device,
    Eps,
    Seed,
    Size,
    Threads,
    choose_autocast,
    choose_device,
    describe,
)
from .threads import choose_threads

TEST_STEPS = 20
EPOCH_TEST_STEPS = 10
_STATE = "resume.safetensors"


def train(
    context: typer.Context,
    data: DataSpec,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Checkpoint to write, *.safetensors.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help=f"Network: {', '.join(models.available())}. Capitals stand for numbers or names "
            "of your choice, as in wrn-28-10 or torchvision:resnet18. Not needed with --preset.",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Train by a published recipe for CIFAR-10, which sets network, method and "
            f"schedule: {', '.join(recipes.available())}. --model, --epochs, --batch-size, --lr, "
            "--augment and --ema given beside it count.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help=f"How to train: {', '.join(methods.available())}. All but 'standard' and 'noise' "
            "are adversarial.",
        ),
    ] = "standard",
    eps: Eps = DEFAULT_EPS,
    attack_steps: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Attack steps in training, of pgd, trades and mart (default: 10).",
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="Times through the images.")] = 10,
    batch_size: Annotated[int, typer.Option(min=1, metavar="N", help="Images a step.")] = 128,
    lr: Annotated[float, typer.Option(metavar="RATE", help="Highest learning rate.")] = 0.1,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Vary the training images: 'crop' (small shifts) or 'crop+flip' (default: no).",
        ),
    ] = None,
    ema: Annotated[
        float | None,
        typer.Option(
            metavar="DECAY",
            help="Evaluate and save a running average of the weights, which keeps the share DECAY "
            "of itself in each step, as in 0.999 (default: no average).",
        ),
    ] = None,
    autocast: Autocast = None,
    size: Size = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Train on only N images, drawn at random."),
    ] = None,
    test_limit: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Test images for the accuracies, at most."),
    ] = 1000,
    resume: Annotated[
        bool | None,
        typer.Option(
            "--resume/--no-resume",
            help="Go on with an interrupted training, or start it over.",
            show_default=False,
        ),
    ] = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Train a network, standard or robust, and measure its clean and robust accuracy.

    Robust accuracy is the share of test images that stay right under a PGD attack of radius --eps.
    Beside FILE, a folder FILE.training keeps a log of all epochs (log.jsonl), the best epoch's
    weights, and what --resume needs: Ctrl-C or a crash costs one epoch at most.

    \b
    Examples:
      repsim-fast train --data digits --model resnet-digits --out standard.safetensors
      repsim-fast train --data cifar10:data --model wrn-28-4 --method pgd --eps 8/255 \\
          --epochs 30 --augment crop+flip --out robust.safetensors
    """
    from repsim_fast.data import load

    if out.suffix != ".safetensors":
        raise ValueError(f"--out must be a name that ends in .safetensors, got {str(out)!r}")
    mixed = choose_autocast(autocast)
    where = choose_device(device)
    threads_used = choose_threads(threads)
    folder = _training_folder(out, resume)
    log = folder / "log.jsonl"
    settings: dict[str, Any] = {
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "augment": augment, "ema": ema,
    }  # fmt: skip
    if preset is None:
        options = _method_options(method, eps, attack_steps)
    else:
        recipe = recipes.get(preset)
        settings = _of_recipe(recipe, settings, context)
        method, options = settings.pop("method"), settings.pop("method_options", {})
        model = model or recipe.model
        eps = recipe.eps or eps
    if model is None:
        raise ValueError("--model: name a network, or a --preset")
    trained_by = methods.build(method, **options)
    progress = sys.stderr.isatty()
    images = load(data, "train", size=size, limit=limit, seed=seed, progress=progress)
    unseen = load(data, "test", size=size, limit=test_limit, seed=seed, progress=progress)
    architecture: dict[str, Any] = {
        "name": model,
        "num_classes": len(images.classes),
        "in_channels": images.images.shape[1],
    }
    network = models.build(**architecture, seed=seed)
    typer.echo(
        f"training {model} ({sum(p.numel() for p in network.parameters()):,} parameters) on "
        f"{describe(images)}; device {where}, {threads_used}"
    )
    robust = trained_by.eps is not None

    def show(_: nn.Module, record: Epoch) -> None:
        tqdm.write(_epoch_line(record, settings["epochs"]))  # keeps a progress bar intact

    with _resumable(out):
        train_network(
            network,
            images,
            # The name with its settings: the progress bar shows it, and --resume compares it.
            method=replace(trained_by, name=_described(method, options)),
            **settings,
            on_epoch=show,
            autocast=mixed,
            eval_data=unseen,
            eval_attack=PGD(eps, steps=EPOCH_TEST_STEPS, seed=seed) if robust else None,
            checkpoint=folder,
            architecture=architecture,
            resume=resume is True,
            log_path=log,
            device=where,
            seed=seed,
            progress=progress,
        )
        accuracy = evaluate(
            network, unseen, PGD(eps, steps=TEST_STEPS, seed=seed), progress=progress
        )
    models.save_checkpoint(
        out,
        network,
        **architecture,
        method=method,
        method_options=options,
        preset=preset,
        autocast=autocast,
        **{name: settings[name] for name in ("epochs", "batch_size", "lr", "augment")},
        ema=settings.get("ema"),
        seed=seed,
        threads=torch.get_num_threads(),
        data=describe(images),
        classes=list(images.classes),
        clean_accuracy=accuracy.clean,
        robust_accuracy=accuracy.robust,
        attack=f"PGD, {TEST_STEPS} steps, eps {eps:.6g}, {accuracy.n} test images",
    )
    _show_accuracy(accuracy, eps)
    typer.echo(f"wrote {out} (and {folder} with log, best epoch and state for --resume)")


def _training_folder(out: Path, resume: bool | None) -> Path:
    """The folder beside the checkpoint, writable, and of no other unfinished training.

    Raises:
        OSError: A place cannot be written to.
        ValueError: An interrupted training would be overwritten.
    """
    if out.is_dir():
        raise OSError(f"cannot write {str(out)!r}: it is a folder")
    check_writable(out.parent)
    folder = check_writable(out.with_suffix(".training"))
    there = (folder / _STATE).exists()
    if there and resume is None and not out.exists():
        raise ValueError(
            f"{folder} has an interrupted training: --resume goes on with it, --no-resume starts "
            "over"
        )
    if resume and not there:
        typer.echo(f"nothing to resume in {folder}: starting from the beginning")
    if not there or resume is False:
        # Nor may an earlier training's epochs show up among this one's.
        (folder / "log.jsonl").unlink(missing_ok=True)
        (folder / _STATE).unlink(missing_ok=True)
    return folder


def _method_options(method: str, eps: float, steps: int | None) -> dict[str, Any]:
    """What of the command line is a setting of the method.

    Raises:
        ValueError: No such method, or --attack-steps for one that has none.
    """
    if method not in methods.available():
        raise ValueError(
            f"--method must be one of {', '.join(methods.available())}, got {method!r}"
        )
    settings = inspect.signature(getattr(methods, method.replace("-", "_"))).parameters
    options: dict[str, Any] = {"eps": eps} if "eps" in settings else {}
    if steps is not None:
        if "steps" not in settings:
            raise ValueError(f"--attack-steps: method {method!r} has a fixed number of steps")
        options["steps"] = steps
    return options


def _of_recipe(
    recipe: recipes.Recipe, settings: dict[str, Any], context: typer.Context
) -> dict[str, Any]:
    """A recipe's settings, and those that stand on the command line in their place.

    Raises:
        ValueError: An option that is the recipe's to decide.
    """
    given = {
        name
        for name in context.params
        if (source := context.get_parameter_source(name)) and source.name == "COMMANDLINE"
    }
    for name in ("method", "eps", "attack_steps"):
        if name in given:
            raise ValueError(f"--{name.replace('_', '-')} is the preset's: leave out one of them")
    return {**recipe.settings, **{name: settings[name] for name in settings.keys() & given}}


def _described(method: str, options: dict[str, Any]) -> str:
    settings = ", ".join(_setting(name, value) for name, value in options.items())
    return f"{method}, {settings}" if settings else method


def _setting(name: str, value: Any) -> str:
    return f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"


def _epoch_line(epoch: Epoch, epochs: int) -> str:
    figures = {
        "loss": epoch.loss,
        "train": epoch.train_accuracy,
        "test": epoch.clean_accuracy,
        "attacked": epoch.robust_accuracy,
    }
    return (
        f"epoch {epoch.epoch + 1:>{len(str(epochs))}}/{epochs}  "
        + "  ".join(f"{name} {value:.3f}" for name, value in figures.items() if value is not None)
        + f"  {epoch.seconds:.1f} s"
    )


@contextlib.contextmanager
def _resumable(out: Path) -> Iterator[None]:
    """Ctrl-C says how to go on, in words of the command line rather than the trainer's."""
    trainer = logging.getLogger("repsim_fast.training.trainer")
    level = trainer.level
    trainer.setLevel(logging.ERROR)
    try:
        yield
    except KeyboardInterrupt:
        if (out.with_suffix(".training") / _STATE).exists():
            raise Interrupted(
                "interrupted; the same command with --resume goes on after the last whole epoch"
            ) from None
        raise Interrupted("interrupted in the first epoch: nothing is kept") from None
    finally:
        trainer.setLevel(level)


def _show_accuracy(accuracy: Accuracy, eps: float) -> None:
    low, high = accuracy.interval()
    typer.echo(
        f"\nclean accuracy   {accuracy.clean:.3f} (95 % interval {low:.3f} to {high:.3f}, "
        f"{accuracy.n:,} test images)"
    )
    low, high = accuracy.interval(robust=True)
    typer.echo(
        f"robust accuracy  {accuracy.robust:.3f} (95 % interval {low:.3f} to {high:.3f}, PGD with "
        f"{TEST_STEPS} steps, eps {eps:.4g})\n"
    )
