"""`repsim-fast train`: a network from images to a checkpoint."""

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
from repsim_fast.data import ImageData
from repsim_fast.training import (
    Accuracy,
    CollapseGuard,
    Diagnostics,
    Epoch,
    Evaluation,
    Optimisation,
    Ramp,
    Saving,
    evaluate,
    methods,
)
from repsim_fast.training import train as train_network
from repsim_fast.training.checkpoints import RESUME, mark

from . import ramps
from .option_groups import grouped
from .options import (
    DataSpec,
    Device,
    Seed,
    Size,
    Threads,
    choose_autocast,
    choose_device,
)
from .threads import choose_threads
from .train_data import TEST, Sources, load_all, named_specs
from .train_folder import BEFORE_COLLAPSE, LOG, MARK, resumable, written_alone
from .train_measurement import (
    Measurement,
    check_diagnostics,
    detection,
    diagnostics,
    figures_of,
    measurement,
)
from .train_options import (
    VALIDATION,
    CourseOptions,
    EvalData,
    EvaluationOptions,
    Init,
    KeepZeros,
    Limit,
    MethodOptions,
    Mix,
    MixShare,
    ModelName,
    OptimisationOptions,
    Out,
    Preset,
    Resume,
    Tensorboard,
)
from .train_setup import (
    Setup,
    named,
    of_options,
    of_recipe,
    selectivity_layers,
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
    keep_zeros: KeepZeros = None,
    preset: Preset = None,
    method: MethodOptions,
    course: CourseOptions,
    optimisation: OptimisationOptions,
    measured: EvaluationOptions,
    size: Size = None,
    limit: Limit = None,
    mix: Mix = None,
    mix_share: MixShare = None,
    eval_data: EvalData = None,
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
      repsim-fast train --data digits --model resnet-digits --method pgd --eps 0..0.15@0.3 \\
          --eval-attack pgd,fgsm --diagnostics selectivity,alignment --out robust.safetensors
    """
    name = named(model, init, preset)
    if name is not None and preset is None:
        setup = of_options(name, method, course, optimisation)
    else:
        typed = typed_options(context)
        setup = of_recipe(str(preset), name, method, course, optimisation, typed)
    against, watched = measurement(setup, measured), check_diagnostics(setup, measured)
    layers = selectivity_layers(optimisation)
    if layers is not None and "selectivity" not in watched:
        raise ValueError("--selectivity-layers: needs --selectivity or --diagnostics selectivity")
    further = named_specs(eval_data)
    sources = Sources(data, mix, mix_share, further, size, limit, measured.test_limit)
    validation = measured.validation
    if validation is None:
        validation = VALIDATION if preset is None else 0.0
    where, threads_used = choose_device(device), choose_threads(threads)
    mixed = choose_autocast(optimisation.autocast, where)
    setup = setup.with_autocast(mixed)
    precision = None if mixed is None else str(mixed).removeprefix("torch.")
    with written_alone(out, resume) as folder:
        images = load_all(sources, seed)
        network, architecture = _build(setup.model, images.train, seed)
        pruned = _prune_again(network, init, keep_zeros)
        typer.echo(
            f"training {setup.model} ({sum(p.numel() for p in network.parameters()):,} "
            f"parameters) on {images.about}; device {where}, {threads_used}, "
            f"autocast {precision or 'none'}"
        )
        robust = methods.build(setup.method, **setup.method_options).eps is not None
        attacked = robust or bool(against.names)
        evaluation = Evaluation(
            images.measured(validation),
            against.attack(measured.eval_steps, seed) if attacked else None,
            measured.eval_every,
            validation=validation,
            attacked=measured.attacked,
            best=measured.best,
            **detection(setup, measured),
        )
        watch = diagnostics(watched, setup, measured, images.test, seed, layers=layers)
        saving = Saving(
            folder, architecture, resume=resume is True, log=folder / LOG, tensorboard=tensorboard
        )
        with resumable(out):
            restore = measured.restore_on_overfitting
            _train(
                network, images.stream, setup, evaluation, saving, watch, init, where, seed, restore
            )
            final = {
                name: evaluate(
                    network, held, against.attack(TEST_STEPS, seed), progress=_progress()
                )
                for name, held in images.at_the_end().items()
            }
        accuracy = final[TEST]
        about: dict[str, Any] = {
            "preset": preset,
            "init": None if init is None else str(init),
            "autocast": precision,
            "seed": seed,
            "data": images.about,
            **pruned,
            "validation": validation,
            "attack": f"{against.described(TEST_STEPS)}, {accuracy.n} test images",
        }
        if against.names or further:
            about["accuracies"] = {name: _by_name(scores) for name, scores in final.items()}
        about[MARK] = mark(folder / RESUME)
        _save(
            out,
            pruning.unmasked(network),
            architecture,
            setup,
            accuracy,
            classes=list(images.train.classes),
            **about,
        )
    _show_accuracy(accuracy, against)
    for name, scores in final.items():
        if against.names or name != TEST:
            typer.echo(f"{name}: {figures_of(_by_name(scores))} ({scores.n:,} images)")
    typer.echo(f"wrote {out} (and {folder} with log, best epoch and state for --resume)")


def _progress() -> bool:
    return sys.stderr.isatty()


def _build(name: str, images: ImageData, seed: int) -> tuple[nn.Module, dict[str, Any]]:
    architecture: dict[str, Any] = {
        "name": name,
        "num_classes": len(images.classes),
        "in_channels": images.images.shape[1],
    }
    return models.build(**architecture, seed=seed), architecture


def _prune_again(network: nn.Module, init: Path | None, asked: bool | None) -> dict[str, Any]:
    """Masks of what is 0 in the checkpoint begun with, and what its header says of its pruning.

    Raises:
        ValueError: Asked for without a checkpoint, or no weight is 0.
    """
    if init is None:
        if asked:
            raise ValueError("--keep-zeros: say whose with --init")
        return {}
    try:
        of_init = models.checkpoint_header(init).get("pruned")
    except ValueError:  # weights alone
        of_init = None
    if not (of_init if asked is None else asked):
        return {}
    models.load_weights(init, network)
    pruning.hold_zeros(network)
    left = pruning.report(network)
    typer.echo(f"{left.kept:,} of {left.weights:,} weights are left and trained, the others stay 0")
    return {} if of_init is None else {"pruned": of_init}


def _train(
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
        progress=_progress(),
    )
    if guard is not None and guard.collapsed is not None:
        typer.echo(f"epoch {guard.collapsed + 1}: {guard.verdict}")
        if guard.good is not None:
            guard.restore_into(network)  # over an average of weights, too
            typer.echo(f"back to the weights of epoch {guard.good + 1}")


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


def _by_name(scores: Accuracy) -> dict[str, float]:
    """Clean accuracy, and that under each attack."""
    robust = {} if scores.robust is None else {"attacked": scores.robust}
    return {"clean": scores.clean, **(scores.under or robust)}


def _show_accuracy(accuracy: Accuracy, against: Measurement) -> None:
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
