"""`repsim-fast compare`: networks against one another, layer by layer."""

from __future__ import annotations

import contextlib
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from repsim_fast._core.files import check_writable
from repsim_fast._core.locks import only_writer
from repsim_fast._core.processes import local_device, processes
from repsim_fast._core.signals import undisturbed
from repsim_fast.attacks import Corruption
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.report.folder import write_folder
from repsim_fast.report.library import plotly_js
from repsim_fast.similarity import UndefinedError, get_measure, measure_names

from .attack_setup import Norm, Radius, compared_attack
from .errors import Interrupted
from .models import open_published, size_for
from .options import (
    Autocast,
    Device,
    MaybeData,
    Mean,
    Seed,
    Size,
    Std,
    Threads,
    choose_autocast,
    choose_device,
    describe,
    parse_channels,
)
from .tables import format_table
from .threads import choose_threads
from .zoo import expand, open_zoo, say_what

PARTIAL = "partial.safetensors"


Models = Annotated[
    list[str],
    typer.Argument(
        metavar="MODEL",
        show_default=False,
        help="Checkpoints that `repsim-fast train` wrote, pretrained:NAME for networks that come "
        "with the package, ARCHITECTURE=FILE for weights of any origin (.pt, .pth, .ckpt, "
        ".safetensors; FILE#KEY where several fit), torchvision:NAME@DEFAULT, "
        "timm:NAME@pretrained or hf:NAME-OR-FOLDER for published ones. ARCHITECTURE is a name "
        "such as wrn-28-10 or torchvision:resnet18, or FILE.py:NAME for code of yours; alone it "
        "is an untrained network; recordings that `repsim-fast "
        "record` wrote; folders of checkpoints or recordings, and patterns such as 'runs/*'.",
    ),
]
Out = Annotated[Path, typer.Option(metavar="DIR", help="Folder for the results.")]
Split = Annotated[str, typer.Option(metavar="NAME", help="'test' or 'train' images.")]
Limit = Annotated[
    int | None,
    typer.Option(min=4, metavar="N", help="Use only N images, drawn at random."),
]
Layers = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN",
        help="Layers to compare, by name or pattern such as 'stage*.relu2'; may be given "
        "several times (default: all convolutions, norms, activations, poolings, linear "
        "layers and blocks).",
    ),
]
MeasureNames = Annotated[
    str,
    typer.Option(
        metavar="NAMES",
        help="Similarity measure, or several with commas between them, which are computed in one "
        f"pass and share a page with a switch: {', '.join(measure_names())}.",
    ),
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
]
Permutations = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Random orders of the images that give the chance level of measures other than cka, "
        "whose level is known; 0 for none (default: ten, where they take a minute at most).",
    ),
]
MinusChance = Annotated[
    bool,
    typer.Option(
        "--minus-chance", help="Draw heat maps of the values minus their chance levels as well."
    ),
]
Figures = Annotated[
    bool,
    typer.Option(help="Draw heat maps as PNGs; the report, which draws itself, is always there."),
]
EstimatorName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Estimator of measures of kernels such as cka: 'unbiased' or 'biased' (default: the "
        "measure's own).",
    ),
]
MapsForm = Annotated[
    str,
    typer.Option(
        metavar="FORM",
        help="What becomes of maps and tokens: 'flatten', 'pool' (mean over positions), "
        "'positions' (each of them a sample); of transformers 'tokens' (each of them a sample), "
        "'mean' (over tokens), 'cls' (the first token), 'last'.",
    ),
]
ChannelsPlace = Annotated[
    str | None,
    typer.Option(
        metavar="PLACE",
        help="Where layers have their channels, 'first' or 'last', where that is not found from "
        "the layers themselves; 'flatten' does not ask.",
    ),
]
Calls = Annotated[
    str,
    typer.Option(
        metavar="WHICH",
        help="Of a layer that is called several times in a pass, 'all' calls or the 'first'.",
    ),
]
Shuffle = Annotated[
    bool,
    typer.Option(
        help="Read images in random order, by the seed, or in the order of the data, which makes "
        "layers look less or more alike where that follows classes."
    ),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=4,
        metavar="N",
        help="Images at a time (default: ten even batches, of 8 to 128 images).",
        show_default=False,
    ),
]
Passes = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Times through the images, in a new order each time; of cka only.",
    ),
]
Attack = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Show each model its own adversarial images: pgd, apgd, autoattack, fgsm, jpeg, snow, "
        "rotation, ... (a wrong name lists all), or the images corrupted, such as "
        "corruption:fog@5, severities 1 to 5 (default: images as they are).",
    ),
]
AttackSteps = Annotated[
    int | None,
    typer.Option(min=1, metavar="N", help="Steps of the attack (default: its own, 10 of pgd)."),
]
ProductPrecision = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE",
        help="Precision of cka's products: 'bfloat16', or 'tf32' on a GPU (default: float32).",
    ),
]
CudaGraph = Annotated[
    bool,
    typer.Option(
        "--cuda-graph",
        help="On a GPU, replay the forward passes as a CUDA graph; of cka only.",
    ),
]


def compare(
    models: Models,
    out: Out,
    data: MaybeData = None,
    split: Split = "test",
    size: Size = None,
    limit: Limit = None,
    mean: Mean = None,
    std: Std = None,
    layers: Layers = None,
    maps: MapsForm = "flatten",
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
          --data digits --out out/compare
    """
    from repsim_fast.comparison.compare import compare as compare_models
    from repsim_fast.data import load

    measures = [name.strip() for name in measure.split(",")]
    for name in measures:
        get_measure(name)
    attacks = attack_maker(attack, norm=norm, eps=eps, steps=attack_steps, seed=seed)
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
        arguments = expand(models)
        published = open_published(arguments, given)
        images = None
        if data is not None:
            size = size_for(published) if size is None else size
            images = load(data, split, size=size, limit=limit, seed=seed, progress=progress)
        zoo = open_zoo(arguments, images, seed=seed, given=given, published=published)
        on = "" if images is None else f" on {describe(images)}"
        if group.first:
            shared = f", {group.size} processes" * (group.size > 1)
            typer.echo(f"comparing {say_what(zoo)}{on}; device {where}, {threads_used}{shared}")
        kept = _partial_result_kept(out) if group.first else contextlib.nullcontext()
        with kept, _notes_left_to_the_table():
            results: dict[str, SimilarityResult] = compare_models(
                zoo.members,
                data=images,
                layers=layers,
                # compare names those there are
                maps=cast(Any, maps),
                channels=cast(Any, channels),
                calls=cast(Any, calls),
                measure=measures,
                estimator=cast(Any, estimator),
                jackknife=jackknife,
                permutations=permutations,
                inputs=attacks_on(zoo.networks, attacks),
                batch_size=batch_size,
                passes=passes,
                # Recordings alone have been read in an order of their own.
                shuffle=None if images is None and shuffle else shuffle,
                autocast=mixed,
                precision=cast(Any, precision),
                cuda_graph=cuda_graph,
                device=where,
                progress=progress,
                seed=seed,
                process_group=group.group,
            )
        if not group.first:
            return
        typer.echo("writing report")
        page = write_folder(
            out,
            results if len(results) > 1 else next(iter(results.values())),
            figures=figures,
            outdated=[PARTIAL],
            minus_chance=minus_chance and any(r.chance is not None for r in results.values()),
            introduction=_introduction(attacks),
            tables={"Models": zoo.about},
        )
    for result in results.values():
        show(result)
    say_where(page, list(results), figures=figures)
    for result in results.values():
        if minus_chance and result.chance is None:
            raise ValueError(
                f"--minus-chance: no chance level ({_as_option(result.chance_note)}); all else is "
                "there"
            )


def show(result: SimilarityResult) -> None:
    """Print the key figures."""
    seconds = result.seconds["total"]
    typer.echo(f"\n{result.n_samples:,} images in {seconds:.1f} s; {result.measure}:\n")
    typer.echo(format_table(result.summary()))
    about = [_as_option(text) for text in (*result.about_values(), *_undefined(result))]
    typer.echo("".join(f"\n{text}" for text in about))


def say_where(page: Path, measures: Sequence[str], *, figures: bool = True) -> None:
    """Say where the page is, and what is beside it."""
    rest = f"{'heat maps (PNG), ' * figures}table (CSV) and result"
    if len(measures) == 1:
        typer.echo(f"\nOpen {page}; beside it are {rest}.")
        return
    folders = ", ".join(str(page.parent / name) for name in measures)
    typer.echo(f"\nOpen {page}, which has a switch of measures; {rest} of each are in {folders}.")


_FEW = "more samples than independent features"  # in errors of measures of few images
_HELPS = (
    "what helps: more images (a larger --limit, --split train), fewer features of a layer "
    "(--maps pool), layers of few features (--layers), or --measure cka"
)


def _undefined(result: SimilarityResult) -> list[str]:
    """Why layers have no value, and which option helps."""
    reasons = {why: None for layers in result.undefined.values() for why in layers.values()}
    texts = [f"why there is no value: {reason}" for reason in list(reasons)[:3]]
    return [*texts, _HELPS] if any(_FEW in reason for reason in reasons) else texts


def _as_option(text: str) -> str:
    """A text for Python in the words of the command line."""
    return re.sub(r"\b(jackknife|permutations)=(\d+)", r"--\1 \2", text).replace(
        "batch_size", "--batch-size"
    )


def attack_maker(
    name: str | None, *, norm: str, eps: float | None, steps: int | None, seed: int
) -> Callable[[], Any] | None:
    """What makes the attack anew, each time from the same random start; None without one.

    Raises:
        ValueError: No such attack, or an option that it does not have.
    """
    if name is None:
        return None
    make = partial(compared_attack, "--attack", name, norm=norm, eps=eps, steps=steps, seed=seed)
    make()  # which says what is wrong with it
    return make


def attacks_on(networks: dict[str, Any], make: Callable[[], Any] | None) -> dict[str, Any] | None:
    """For each network the attack on it, from the same random start."""
    if make is None or not networks:
        return None
    return {name: partial(make(), network) for name, network in networks.items()}


def _introduction(make: Callable[[], Any] | None) -> str:
    if make is None:
        return ""
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
    try:
        yield
    except BaseException as error:
        partial_result = getattr(error, "partial_result", None)
        stopped = isinstance(error, KeyboardInterrupt)
        if partial_result is None:
            if stopped:
                raise Interrupted("interrupted before the first batch was done") from None
            if isinstance(error, UndefinedError) and _FEW in str(error):
                raise ValueError(f"{error}; {_HELPS}") from None
            raise
        several = len(partial_result) > 1
        with undisturbed():
            paths = [
                result.save((out / name if several else out) / PARTIAL)
                for name, result in partial_result.items()
            ]
        done = next(iter(partial_result.values())).n_batches
        where = " and ".join(map(str, paths))
        kept = (
            f"{where} has the result of the {done} batches before (SimilarityResult.load reads it)"
        )
        if stopped:
            raise Interrupted(f"interrupted; {kept}") from None
        typer.echo(kept, err=True)
        raise
