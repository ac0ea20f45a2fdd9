"""`repsim-fast compare`: networks against one another, layer by layer."""

from __future__ import annotations

import contextlib
import re
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from repsim_fast._core.files import check_writable
from repsim_fast._core.locks import only_writer
from repsim_fast._core.names import MEASURES
from repsim_fast._core.signals import undisturbed

from .acting import check_acting, check_attacked
from .attack_setup import Norm, Radius, attack_maker, attacks_on
from .errors import Interrupted
from .options import (
    Autocast,
    Device,
    Mean,
    On,
    Seed,
    Size,
    Split,
    Std,
    Threads,
    choose_autocast,
    choose_device,
    describe,
    parse_channels,
)
from .run_options import (
    Attack,
    AttackSteps,
    BatchSize,
    Calls,
    ChannelsPlace,
    Layers,
    Limit,
    MapsForm,
    Mask,
    MaybeInputs,
    Models,
    Passes,
    ProductPrecision,
    Results,
    Shuffle,
    masks,
)
from .shown import FEW, HELPS, as_option, say_where, show
from .threads import choose_threads

if TYPE_CHECKING:
    from repsim_fast.comparison.result import SimilarityResult

PARTIAL = "partial.safetensors"
SUMS = "sums"


MeasureNames = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Similarity measure, or several with commas between them, which are computed in one "
        f"pass and share a page with a switch: {', '.join(MEASURES)}.",
    ),
    On.RESULTS,
]
Jackknife = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Groups of images that are left out in turn for the standard errors of measures "
        "other than cka, whose errors come from its batches; 0 for none (default: ten, where they "
        "take a minute at most).",
    ),
    On.RESULTS,
]
Permutations = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Random orders of the images that give the chance level of measures other than cka, "
        "whose level is known; 0 for none (default: ten, where they take a minute at most).",
    ),
    On.RESULTS,
]
MinusChance = Annotated[
    bool,
    typer.Option(
        "--minus-chance", help="Draw heat maps of the values minus their chance levels as well."
    ),
    On.RESULTS,
]
Figures = Annotated[
    bool,
    typer.Option(help="Draw heat maps as PNGs; the report, which draws itself, is always there."),
    On.RESULTS,
]
EstimatorName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Estimator of measures of kernels such as cka: 'unbiased' or 'biased' (default: the "
        "measure's own).",
    ),
    On.RESULTS,
]
CudaGraph = Annotated[
    bool,
    typer.Option(
        "--cuda-graph",
        help="On a GPU, replay the forward passes as a CUDA graph; of cka only.",
    ),
]

KeepEvery = Annotated[
    int | None,
    typer.Option(
        "--every",
        min=1,
        metavar="N",
        help="Keep the sums over images in DIR/sums after every N batches, each process those of "
        "its own: the same command goes on where it was killed; of cka only (default: not kept).",
        show_default=False,
    ),
]


def compare(
    context: typer.Context,
    models: Models,
    out: Results,
    data: MaybeInputs = None,
    split: Split = "test",
    size: Size = None,
    limit: Limit = None,
    mean: Mean = None,
    std: Std = None,
    layers: Layers = None,
    maps: MapsForm = "flatten",
    mask: Mask = None,
    channels: ChannelsPlace = None,
    calls: Calls = "all",
    measure: MeasureNames = "cka",
    estimator: EstimatorName = None,
    jackknife: Jackknife = None,
    permutations: Permutations = None,
    minus_chance: MinusChance = False,
    figures: Figures = True,
    batch_size: BatchSize = None,
    passes: Passes = 1,
    shuffle: Shuffle = True,
    attack: Attack = None,
    norm: Norm = "linf",
    eps: Radius = None,
    attack_steps: AttackSteps = None,
    autocast: Autocast = None,
    precision: ProductPrecision = None,
    cuda_graph: CudaGraph = False,
    every: KeepEvery = None,
    seed: Seed = 0,
    device: Device = None,
    threads: Threads = None,
) -> None:
    """Compare networks layer by layer: within each of them and between all pairs.

    Writes a page to explore (HTML), heat maps (PNG), the table of all pairs of layers (CSV) and the
    result for further work in Python, and prints the key figures. Started by torchrun, processes
    share the images, and the first one writes and prints.

    \b
    Examples:
      repsim-fast compare standard.safetensors robust.safetensors --data digits --out out/compare
      repsim-fast compare a.safetensors b.safetensors --data digits --measure cka,cca --maps pool \\
          --out out/both
      repsim-fast compare a.safetensors b.safetensors --data cifar10:data --limit 2000 \\
          --layers 'stage*.relu2' --attack pgd --eps 8/255 --out out/attacked
      repsim-fast compare recordings --out out/compare
      torchrun --nproc-per-node 2 -m repsim_fast compare a.safetensors b.safetensors \\
          --data digits --every 50 --out out/compare
    """
    from repsim_fast._core.processes import local_device, processes
    from repsim_fast.comparison.compare import compare as compare_models
    from repsim_fast.report.folder import write_folder
    from repsim_fast.report.library import plotly_js
    from repsim_fast.similarity import get_measure

    from .inputs import load_inputs
    from .models import open_published
    from .zoo import expand, open_zoo, say_what

    measures = [name.strip() for name in measure.split(",")]
    for name in measures:
        get_measure(name)
    attacks = attack_maker(attack, norm=norm, eps=eps, steps=attack_steps, seed=seed)
    if every is not None and measures != ["cka"]:
        raise ValueError(f"--every: expected --measure cka, whose sums are kept, got {measure!r}")
    if minus_chance and permutations == 0:
        raise ValueError("--minus-chance needs chance levels, got --permutations 0")
    where = local_device(choose_device(device))
    group = processes(where)
    mixed = choose_autocast(autocast, where)
    threads_used = choose_threads(threads)
    plotly_js()  # what a report cannot be without, before the work
    # write_folder has a lock of its own, for the time of the writing.
    with only_writer(check_writable(out) / PARTIAL) if group.first else contextlib.nullcontext():
        progress = sys.stderr.isatty() and group.first
        given = parse_channels(mean), parse_channels(std)
        arguments = expand(models, say=group.first)
        published = open_published(arguments, given)
        images = None
        if data is not None:
            images = load_inputs(
                data, split, size=size, limit=limit, seed=seed, attack=attack, mean=mean,
                networks={name: known.about for name, known in published.items()},
                say=group.first, progress=progress,
            )  # fmt: skip
        zoo = open_zoo(
            arguments, images, seed=seed, given=given, published=published, say=group.first
        )
        if zoo.networks:
            check_attacked(zoo.recordings, attacks)
        else:
            check_acting(compare, context, zoo.recordings, data=images is not None)
        on = "" if images is None else f" on {describe(images)}"
        if group.first:
            shared = f", {group.size} processes" * (group.size > 1)
            typer.echo(f"comparing {say_what(zoo)}{on}; device {where}, {threads_used}{shared}")
        kept = _partial_result_kept(out) if group.first else contextlib.nullcontext()
        with kept, _notes_left_to_the_table():
            results: dict[str, SimilarityResult] = compare_models(
                zoo.members,
                data=images,
                # Recordings alone were held against all of this.
                layers=layers if zoo.networks else None,
                # compare names those there are
                maps=cast(Any, maps),
                mask=masks(mask),
                channels=cast(Any, channels),
                calls=cast(Any, calls),
                measure=measures,
                estimator=cast(Any, estimator),
                jackknife=jackknife,
                permutations=permutations,
                inputs=attacks_on(zoo.networks, attacks),
                batch_size=batch_size,
                passes=passes,
                shuffle=None if images is None and shuffle else shuffle,
                autocast=mixed,
                precision=cast(Any, precision),
                cuda_graph=cuda_graph,
                device=where,
                progress=progress,
                seed=seed,
                process_group=group.group,
                resume=None if every is None else out / SUMS,
                every=every or 1,
            )
        if not group.first:
            return
        typer.echo("writing report")
        with _result_kept(out, results):
            page = write_folder(
                out,
                results if len(results) > 1 else next(iter(results.values())),
                figures=figures,
                outdated=[PARTIAL],
                minus_chance=minus_chance and any(r.chance is not None for r in results.values()),
                introduction=_introduction(attacks),
                tables={"Models": zoo.about},
            )
        shutil.rmtree(out / SUMS, ignore_errors=True)  # of this comparison, which is there now
    for result in results.values():
        show(result)
    say_where(page, list(results), figures=figures)
    for result in results.values():
        if minus_chance and result.chance is None:
            raise ValueError(
                f"--minus-chance: no chance level ({as_option(result.chance_note)}); all else is "
                "there"
            )


def _introduction(make: Callable[[], Any] | None) -> str:
    if make is None:
        return ""
    from repsim_fast.attacks import Corruption

    made = make()
    shown = "corrupted images" if isinstance(made, Corruption) else "its own adversarial images"
    return f"Each model saw {shown}: {made!r}."


@contextlib.contextmanager
def _notes_left_to_the_table() -> Iterator[None]:
    """What ``compare`` warns its caller of stands below the table, in words of the command line;
    but for why similarities are undefined, which does not."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="(?!similarity is undefined)", module=re.escape(__name__) + "$"
        )
        yield


@contextlib.contextmanager
def _partial_result_kept(out: Path) -> Iterator[None]:
    """Save what was measured before an error or Ctrl-C, under a name of its own, and say so."""
    from repsim_fast.similarity import UndefinedError

    try:
        yield
    except BaseException as error:
        partial_result = getattr(error, "partial_result", None)
        stopped = isinstance(error, KeyboardInterrupt)
        if partial_result is None:
            if stopped:
                raise Interrupted("interrupted before the first batch was done") from None
            if isinstance(error, UndefinedError) and FEW in str(error):
                raise ValueError(f"{error}; {HELPS}") from None
            raise
        done = next(iter(partial_result.values())).n_batches
        where = _saved(out, partial_result)
        kept = (
            f"{where} has the result of the {done} batches before (SimilarityResult.load reads it)"
        )
        if stopped:
            raise Interrupted(f"interrupted; {kept}") from None
        typer.echo(kept, err=True)
        raise


@contextlib.contextmanager
def _result_kept(out: Path, results: Mapping[str, SimilarityResult]) -> Iterator[None]:
    """Save what a whole comparison has found where no report of it could be written."""
    try:
        yield
    except OSError:
        with contextlib.suppress(OSError):
            where = _saved(out, results)
            typer.echo(f"{where} has the result (SimilarityResult.load reads it)", err=True)
        raise


def _saved(out: Path, results: Mapping[str, SimilarityResult]) -> str:
    """Where results that have no report are."""
    with undisturbed():
        paths = [
            result.save((out / name if len(results) > 1 else out) / PARTIAL)
            for name, result in results.items()
        ]
    return " and ".join(map(str, paths))
