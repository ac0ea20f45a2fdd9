"""`repsim-fast train`: a network from images to a checkpoint."""

from __future__ import annotations

from typing import Any

import typer

from .option_groups import grouped
from .options import (
    DataSpec,
    Device,
    Seed,
    Size,
    Threads,
    choose_autocast,
    choose_device,
    typed_options,
)
from .threads import choose_threads
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
    from repsim_fast import pruning
    from repsim_fast.training import Evaluation, Saving, evaluate, methods
    from repsim_fast.training.checkpoints import RESUME, mark

    from . import train_run as stages
    from .train_data import TEST, Sources, load_all, named_specs
    from .train_folder import LOG, MARK, resumable, written_alone
    from .train_measurement import (
        check_diagnostics,
        detection,
        diagnostics,
        figures_of,
        measurement,
    )
    from .train_setup import named, of_options, of_recipe, selectivity_layers

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
        network, architecture = stages.build(setup.model, images.train, seed)
        pruned = stages.prune_again(network, init, keep_zeros)
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
            stages.train(
                network, images.stream, setup, evaluation, saving, watch, init, where, seed, restore
            )
            final = {
                name: evaluate(
                    network,
                    held,
                    against.attack(stages.TEST_STEPS, seed),
                    progress=stages.progress(),
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
            "attack": f"{against.described(stages.TEST_STEPS)}, {accuracy.n} test images",
        }
        if against.names or further:
            about["accuracies"] = {name: stages.by_name(scores) for name, scores in final.items()}
        about[MARK] = mark(folder / RESUME)
        stages.save(
            out,
            pruning.unmasked(network),
            architecture,
            setup,
            accuracy,
            classes=list(images.train.classes),
            **about,
        )
    stages.show_accuracy(accuracy, against)
    for name, scores in final.items():
        if against.names or name != TEST:
            typer.echo(f"{name}: {figures_of(stages.by_name(scores))} ({scores.n:,} images)")
    typer.echo(f"wrote {out} (and {folder} with log, best epoch and state for --resume)")
