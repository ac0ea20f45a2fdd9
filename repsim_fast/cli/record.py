"""`repsim-fast record`: networks run once each, kept to be compared again and again."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from repsim_fast._core.files import check_writable

from .attack_setup import Norm, Radius, attack_maker, attacks_on
from .options import (
    Autocast,
    Device,
    Mean,
    Seed,
    Size,
    Split,
    Std,
    Threads,
    choose_autocast,
    choose_device,
    describe,
    parse_channels,
    parse_folder,
)
from .run_options import (
    Attack,
    AttackSteps,
    BatchSize,
    Calls,
    ChannelsPlace,
    InputsSpec,
    Layers,
    Limit,
    MapsForm,
    Mask,
    Models,
    Passes,
    ProductPrecision,
    Shuffle,
    masks,
)
from .threads import choose_threads

Out = Annotated[
    Path,
    typer.Option(
        parser=parse_folder, metavar="DIR", help="Folder for the recordings, one folder each."
    ),
]
Keep = Annotated[
    str,
    typer.Option(
        metavar="WHAT",
        help="'grams' of each batch, for cka; or 'features', for every measure, of the layers' "
        "size.",
    ),
]
GramEstimator = Annotated[
    str,
    typer.Option(metavar="NAME", help="Estimator of cka that Grams are for: 'unbiased', 'biased'."),
]
Stored = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help="Numbers in the files: 'float32', or 'float16', half the size, whose error is said "
        "(default: as computed).",
    ),
]
Every = Annotated[
    int,
    typer.Option(
        min=1, metavar="N", help="Batches that are written at a time, and lost by a kill at most."
    ),
]


def record(
    models: Models,
    data: InputsSpec,
    out: Out,
    split: Split = "test",
    size: Size = None,
    limit: Limit = None,
    mean: Mean = None,
    std: Std = None,
    keep: Keep = "grams",
    estimator: GramEstimator = "unbiased",
    stored: Stored = None,
    every: Every = 16,
    layers: Layers = None,
    maps: MapsForm = "flatten",
    mask: Mask = None,
    channels: ChannelsPlace = None,
    calls: Calls = "all",
    batch_size: BatchSize = None,
    passes: Passes = 1,
    shuffle: Shuffle = True,
    attack: Attack = None,
    norm: Norm = "linf",
    eps: Radius = None,
    attack_steps: AttackSteps = None,
    autocast: Autocast = None,
    precision: ProductPrecision = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Run networks one after the other, and keep what comparisons need of each.

    `repsim-fast compare` takes recordings in place of networks, and gives the same numbers. A
    recording that was stopped goes on where it was when the same command is given again; one that
    is finished is not made again. Started by torchrun, processes share the networks.

    \b
    Examples:
      repsim-fast record 'runs/*.safetensors' --data digits --out recordings
      repsim-fast compare recordings --out out/compare
    """
    from repsim_fast._core.processes import local_device, processes
    from repsim_fast.comparison.record import record as record_model
    from repsim_fast.comparison.recording import is_recording

    from .inputs import load_inputs
    from .models import open_models, short_names
    from .zoo import echo_recording, expand

    where = local_device(choose_device(device))
    group = processes(where)
    mixed = choose_autocast(autocast, where)
    threads_used = choose_threads(threads)
    arguments = expand(models, say=group.first)
    if recorded := [argument for argument in arguments if is_recording(argument)]:
        raise ValueError(f"MODEL: expected networks, got the recording {recorded[0]!r}")
    given = parse_channels(mean), parse_channels(std)
    attack_of = attack_maker(attack, norm=norm, eps=eps, steps=attack_steps, seed=seed)
    check_writable(out)
    progress = sys.stderr.isatty() and group.first
    images = load_inputs(
        data, split, size=size, limit=limit, seed=seed, attack=attack, mean=mean,
        networks={} if size is not None else _published(arguments), say=group.first,
        progress=progress,
    )  # fmt: skip
    if group.first:
        shared = f", {group.size} processes" * (group.size > 1)
        networks = f"{len(arguments)} network{'s' * (len(arguments) > 1)}"
        typer.echo(
            f"recording {networks} on {describe(images)}; device {where}, {threads_used}{shared}"
        )
    names = short_names(arguments)

    def record_one(position: int) -> None:
        name = names[position]
        (opened,) = open_models(
            [arguments[position]], images, seed=seed + position, given=given
        ).values()
        attacks = attacks_on({name: opened.module}, attack_of)
        made = record_model(
            opened.module,
            images,
            out / name.replace("/", "%2F"),
            name=name,
            # record names those there are
            keep=cast(Any, keep),
            estimator=cast(Any, estimator),
            stored=cast(Any, stored),
            every=every,
            layers=layers,
            inputs=None if attacks is None else attacks[name],
            maps=cast(Any, maps),
            mask=masks(mask),
            channels=cast(Any, channels),
            calls=cast(Any, calls),
            batch_size=batch_size,
            passes=passes,
            shuffle=shuffle,
            autocast=mixed,
            precision=cast(Any, precision),
            device=where,
            progress=progress,
            seed=seed,
        )
        echo_recording(made)

    if len(arguments) == 1 and group.size == 1:
        record_one(0)
        return
    own = range(group.rank, len(names), group.size)
    failed = [names[i] for i in own if not _attempted(names[i], partial(record_one, i))]
    # None ends before all have: torchrun would end the others with one that failed.
    failed = [name for some in group.gather(failed) for name in some]
    if failed:
        others = f"; the others are recorded in {out}" * (len(failed) < len(arguments))
        raise ValueError(
            f"MODEL: {len(failed)} of {len(arguments)} failed: {', '.join(failed)}{others}"
        )


def _published(arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What is known of those with published weights.

    They are not kept, as no more than one is in memory at a time. One that cannot be opened is
    named when it is to be run, so that the others go on.
    """
    from repsim_fast.models.named import brings_its_own, open_model

    known = {}
    for argument in filter(brings_its_own, arguments):
        with contextlib.suppress(Exception):
            known[argument] = open_model(argument).about
    return known


def _attempted(name: str, work: Callable[[], None]) -> bool:
    """Whether it went well; what did not is said, and the others go on."""
    try:
        work()
    except Exception as error:
        text = (str(error).splitlines() or [""])[0][:1000]
        typer.echo(f"{name}: {type(error).__name__}: {text}", err=True)
        return False
    return True
