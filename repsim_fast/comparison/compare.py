"""Compare what models represent, layer by layer, in one pass over the data."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

import torch

from repsim_fast._core.checks import check_autocast
from repsim_fast._core.files import named_folder
from repsim_fast._core.model_state import device_of, usable_device
from repsim_fast._core.precision import autocast_around
from repsim_fast._core.processes import members as members_of
from repsim_fast._core.signals import undisturbed
from repsim_fast.capture import ChannelsOf, LayerSpec, Maps, MaskSpec
from repsim_fast.comparison import diagnosis
from repsim_fast.comparison.asked import asked_of_models, unlike_data
from repsim_fast.comparison.engine import Engine
from repsim_fast.comparison.identity import identify
from repsim_fast.comparison.intake import TooFewRowsError
from repsim_fast.comparison.outcome import Parts
from repsim_fast.comparison.plan import (
    Forward,
    Member,
    Models,
    Place,
    Plan,
    Transform,
    choose_measures,
    make_plan,
    models_and_data,
)
from repsim_fast.comparison.playback import (
    Playback,
    check_recordings,
    measure_for,
)
from repsim_fast.comparison.processes import Seen, Together, collect, same_everywhere
from repsim_fast.comparison.recorded import check_arguments, check_data, compare_recordings
from repsim_fast.comparison.recording import Recording
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.comparison.session import borrowed, settings_of, shown
from repsim_fast.comparison.sums import Sums, kept_sums
from repsim_fast.data.batches import Batch, Feed, open_data
from repsim_fast.data.fingerprint import digest_of_labels, with_all
from repsim_fast.data.rereading import rereading
from repsim_fast.data.share import Share
from repsim_fast.ops import Precision
from repsim_fast.similarity import Measure
from repsim_fast.similarity.base.accumulator import Accumulator
from repsim_fast.similarity.base.estimator import Estimator
from repsim_fast.similarity.base.measure import options as options_of_measure
from repsim_fast.similarity.streaming.samples import SampleMeasure
from repsim_fast.similarity.streaming.several import Several

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from typing_extensions import Unpack

__all__ = ["compare"]


class OptionsOfAny(TypedDict, total=False):
    """Keyword arguments of :func:`compare` beside the measure."""

    layers: LayerSpec | Sequence[LayerSpec] | Mapping[str, LayerSpec]
    estimator: Estimator | None
    jackknife: int | None
    permutations: int | None
    inputs: Transform | Sequence[Transform | None] | Mapping[str, Transform] | None
    forward: Forward | Sequence[Forward | None] | Mapping[str, Forward] | None
    ids: Sequence[object] | None
    batch_size: int | None
    max_batches: int | None
    passes: int
    shuffle: bool | None
    device: torch.device | str | None
    autocast: torch.dtype | None
    precision: Precision | None
    maps: Maps
    mask: MaskSpec
    channels: ChannelsOf
    calls: Literal["all", "first"]
    cuda_graph: bool
    names: Sequence[str] | None
    progress: bool
    seed: int
    process_group: ProcessGroup | None
    resume: str | os.PathLike[str] | None
    every: int


class Options(OptionsOfAny, total=False):
    """Keyword arguments of :func:`compare`."""

    measure: str | Measure[Any]


@overload
def compare(
    models: Member | Place, model_b: Member | Place, data: Any = None, **options: Unpack[Options]
) -> SimilarityResult: ...
@overload
def compare(
    models: Models | Member, data: Any = None, /, **options: Unpack[Options]
) -> SimilarityResult: ...
@overload
def compare(
    models: Models | Member, *, data: Any = None, **options: Unpack[Options]
) -> SimilarityResult: ...


@overload
def compare(
    models: Models | Member,
    model_b: Any = None,
    data: Any = None,
    *,
    measure: list[Any] | tuple[Any, ...],
    **options: Unpack[OptionsOfAny],
) -> dict[str, SimilarityResult]: ...


def compare(
    models: Models | Member,
    model_b: Any = None,
    data: Any = None,
    *,
    layers: LayerSpec | Sequence[LayerSpec] | Mapping[str, LayerSpec] = None,
    measure: str | Measure[Any] | Sequence[str | Measure[Any]] = "cka",
    estimator: Estimator | None = None,
    jackknife: int | None = None,
    permutations: int | None = None,
    inputs: Transform | Sequence[Transform | None] | Mapping[str, Transform] | None = None,
    forward: Forward | Sequence[Forward | None] | Mapping[str, Forward] | None = None,
    ids: Sequence[object] | None = None,
    batch_size: int | None = None,
    max_batches: int | None = None,
    passes: int = 1,
    shuffle: bool | None = None,
    device: torch.device | str | None = None,
    autocast: torch.dtype | None = None,
    precision: Precision | None = None,
    maps: Maps = "flatten",
    mask: MaskSpec = None,
    channels: ChannelsOf = None,
    calls: Literal["all", "first"] = "all",
    cuda_graph: bool = False,
    names: Sequence[str] | None = None,
    progress: bool = False,
    seed: int = 0,
    process_group: ProcessGroup | None = None,
    resume: str | os.PathLike[str] | None = None,
    every: int = 16,
) -> SimilarityResult | dict[str, SimilarityResult]:
    """Similarity of every layer with every other layer, within and between models.

    ``compare(model_a, model_b, data)`` or ``compare([m1, m2, ...], data)``: each model is run once
    on each batch, and what a layer returns is used up inside the forward pass. The cost is that
    of the forward passes, however many models are compared with one another; the memory that of
    one activation and, for CKA, of n²/2 numbers a layer.

    CKA from minibatches is the ratio of HSICs that were averaged over the batches first; with the
    unbiased estimator it does not depend on the batch size on average. Values are not clamped:
    unrelated layers scatter around 0. Where a layer does not vary at all, similarity is undefined
    and the value is NaN, with a warning that names the layer.

    What a layer returned may be overwritten by the next one. Only where a layer hands on the very
    tensor of the one before is it taken once for both: a change in between is known from torch's
    count of changes, one by way of ``x.data``, which that leaves out, from values of the first
    batch. A model that does so in later batches alone is not seen through.

    Args:
        models: The first model, or all of them: a sequence or a mapping {name: module}, of one or
            more. They are run in eval mode without gradients and come back as they were, every
            module's own mode included. The same module on the same inputs is run once.
            Convolutional networks run with channels last where that is faster, more than a few
            images come, and every layer that is compared was seen to return the same of one, up to
            rounding; the weights of their convolutions are held twice meanwhile. Modules that are
            hooked, compiled or shared with another of the models stay as they are, and so do all
            with ``inputs``, ``forward`` or a callable as ``maps``. In place of any of them a
            ``Recording`` or the path of its folder, which ``record`` wrote: it brings what its
            model made of the same data, so that the model is not run.
        model_b: The second model; left out (``data`` takes its place) where ``models`` is all.
        data: ``ImageData``, a tensor or array (N, ...), a tuple (x, y) or a mapping of them by the
            names of the models' arguments, a ``Dataset``, a ``DataLoader`` or any iterable of
            batches: x, (x, y), (x, y, numbers of the samples) or mappings. x is a tensor or array,
            a list of images, or a mapping of keyword arguments of the models, of which labels and
            texts that a model has no argument for are left out. Labels may be anything; they are
            for ``inputs``. Or, for inputs that differ between models, such as those of two
            tokenisers, a mapping {name of a model: one of these}: the same samples in the same
            order for all. They may be
            left out where all models are recordings; then arguments of running models stay at their
            defaults, and those of the recordings hold.
        layers: Layers of all models that are run: names, patterns or a predicate, as for
            ``Capture``, such as ``"hidden_states.*"`` of transformers of any family; or one such
            choice for each model, as a sequence (None for a recording, which has its layers) or a
            mapping by model name. Default: all layers
            that :func:`~repsim_fast.capture.list_layers` gives a kind.
        measure: "cka", linear centred kernel alignment, in [0, 1] up to the noise of the estimate;
            1 means equal up to rotation and scale. Or any other of ``similarity.measure_names()``,
            or one with options, ``similarity.get_measure("svcca", components=20)``: these need all
            samples at once, so that features are kept, in files beyond 4 GiB. Or a list of several,
            which are computed in one pass (with recordings, one each) and share the samples kept;
            ``jackknife``, ``permutations`` and ``estimator`` are then for those that have them.
        estimator: Of kernel alignments, "unbiased" (HSIC₁, needs 4 samples a batch) or "biased".
            Default: the measure's own, unbiased where none was chosen.
        jackknife: Groups of samples to leave out in turn for the standard errors of measures other
            than "cka", whose errors come from its batches; each group takes as long as the values
            themselves. 0 for none. Default: ten, where that is expected to take at most a minute;
            the result's ``no_error`` says where not. Samples with several rows each, as positions
            have, are left out by whole batches.
        permutations: Random orders of the samples of one layer of each pair, whose mean value is
            the pair's chance level; each takes as long as comparing all pairs, and nothing is
            factorised again. 0 for none. Default: ten, where that is expected to take at most a
            minute; the result's ``chance_note`` says where not. Not for "cka", whose level is known
            exactly: 0 for the unbiased estimator.
        inputs: What a model sees in place of the images: a callable (x, y) -> x, such as an attack
            ``functools.partial(attack, model)`` or a corruption, for all models, or one for each
            (None: the data as they are), as a sequence or a mapping by model name. A recording that
            it is for must have been made with it; a mapping of other models alone leaves
            recordings as they are. It runs with gradients enabled, once a batch and before
            the forward pass; models that name the same callable are fed the same result.
        forward: What runs a model on a batch, (model, batch) -> anything, where batches are
            special: a callable for all models, or one for each. ``batch`` is what the data give, of
            any structure, arrays as tensors, mappings as dicts, on the model's device.
        ids: One different number or text for each sample, where recordings were made with them:
            otherwise samples are known by their inputs.
        batch_size: Samples in a batch, where the data do not come in batches. Default: as many as
            give ten even batches, at least 8 and at most 128.
        max_batches: Stop after so many batches.
        passes: Times to go through the data, shuffled anew each time if more than once. Batches
            of several passes share samples, so that standard errors come out too small then.
        shuffle: Whether samples come in random order, by ``seed``. Default: wherever they can.
            What tells one batch from another is lost to an estimate from batches, so that data in
            an order of their own, class by class say, make layers look less or more alike; a
            warning says so where it is seen.
        device: Where to compute; the models are moved there and back. Default: where they are.
        autocast: Dtype of automatic mixed precision for the forward passes. Default: that of a
            ``torch.autocast`` around the call, or none.
        precision: Precision of the Gram products: None for float32 (float64 for float64
            features), "bfloat16" (on a CPU without AMX better than that), or "tf32" on CUDA;
            see ``ops.centered_gram``.
        maps: Features of convolutional maps and tokens, as for ``Capture``: "flatten", "pool",
            "positions"; "tokens" (each real token a sample), "mean", "cls" and "last" (one row a
            sample, from its real tokens); or a callable. But for callables, layers that return
            their samples elsewhere are put right first: time before samples, the windows or tokens
            of a sample as rows (they become positions), views of all samples one after the other
            (they become channels). Before the first batch, models whose code is not known are run
            on a few samples of it, one of them twice and in other orders, to find out. By default,
            layers whose rows are not samples, as those of experts or in an order of the layer's,
            are left out with a warning that says why.
        mask: Which tokens are real, as for ``Capture``. Default: each layer has the mask of the
            inputs on which it works, "attention_mask" or "decoder_attention_mask".
            Padding in a form that would count it is an error.
        channels: Where layers have their channels, "first", "last" or a callable, as for
            ``Capture``. Default: as the layers have them.
        calls: "all" calls of a layer that is called several times in a pass, or only the "first".
        cuda_graph: Capture the forward passes and their Grams as a CUDA graph at the second batch,
            and replay it for batches like the one before. That saves the time between layers in
            which a GPU waits for Python; models must not wait for the GPU. Only for "cka" and
            without ``inputs``.
        names: Names of the models. Default: their class names, numbered if they are equal.
        progress: Show a progress bar.
        seed: Seed of the random order, of permutations, and of random numbers that models and
            transforms draw, each from a stream of its own for each batch, whoever else is compared;
            the global generators come back as they were.
        process_group: Processes that share the work, ``torch.distributed.group.WORLD`` for all that
            torchrun started: each calls ``compare`` with the same models and the same data, runs
            its share of the batches (batch i that of rank i modulo their number) and returns the
            result of all, that of one process but for rounding. Features of measures other than
            "cka" go to the first one. A loader must not have a ``DistributedSampler``, and
            recordings are for one process. An exception
            in one process ends all. Random numbers that data, or an attack with a generator of its
            own, draw are other ones than in one process. Default: this process alone.

    Returns:
        The similarities of all pairs of layers (of several measures a mapping of one for each, by
        the measure's name), with standard errors and replicates from a
        jackknife, chance levels, and all that was warned of as ``notes``. An exception after one or
        more completed batches, also a keyboard interrupt, has an attribute ``partial_result``: what
        would be returned, up to there, of measures other than "cka" the values alone.

    Raises:
        ValueError: Unusable argument, no layer matched (the message shows what there is), empty
            data or no batch of 4 samples, models that do not give the same samples, or
            NaN or Inf in activations (the message names model, layer and batch).
        TypeError: An argument of the wrong type, or a scripted model.
        RuntimeError: The device does not exist, or models cannot be captured for ``cuda_graph``.

    Example:
        >>> import torch
        >>> from repsim_fast import compare
        >>> a = torch.nn.Linear(5, 3)
        >>> b = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.Tanh())
        >>> result = compare(a, b, torch.randn(64, 5), batch_size=16, names=["one", "two"])
        >>> result.between("one", "two").value.shape
        (1, 2)

    References:
        Kornblith et al., "Similarity of neural network representations revisited", 2019.
        Nguyen et al., "Do wide and deep networks learn the same things?", 2021 (minibatch CKA).
    """
    given = dict(locals())
    processes = members_of(process_group)
    with Together(processes) as together:
        start = perf_counter()
        check_autocast(autocast)
        members, data = models_and_data(models, model_b, data, names)
        recordings = {name: m for name, m in members.items() if isinstance(m, Recording)}
        named = {name: m for name, m in members.items() if not isinstance(m, Recording)}
        if recordings and processes.size > 1:
            raise ValueError(
                f"process_group: expected models alone, got recordings {sorted(recordings)}, whose "
                "forward passes are done: compare them in one process"
            )
        if recordings and resume is not None:
            raise ValueError(
                f"resume: expected None with recordings {sorted(recordings)}, got {resume!r}: "
                "record the other models as well, which goes on after a kill"
            )
        if resume is not None:
            resume = named_folder("resume", resume)
        if resume is not None and cuda_graph:
            raise ValueError("cuda_graph: expected False with resume, got True")
        if recordings and max_batches is not None:
            raise ValueError(f"max_batches: expected None with recordings, got {max_batches}")
        alone = not isinstance(measure, (list, tuple))
        choices: list[Any] = [measure] if alone else list(measure)  # type: ignore[arg-type]
        several = choose_measures(measure, estimator)
        if recordings and not alone:
            found = {}
            with rereading(data) as rewind:
                for name, one in zip(several, choices, strict=True):
                    rewind()
                    found[name] = _alone(given, one, several[name], estimator)
            return found
        chosen = measure_for(recordings, choices[0], estimator) if recordings else _first(several)
        opening: dict[str, Any] = {
            "batch_size": batch_size, "passes": passes, "shuffle": shuffle, "seed": seed,
        }  # fmt: skip
        if not named:
            asked = {
                "layers": layers, "inputs": inputs, "autocast": autocast, "maps": maps,
                "mask": mask, "channels": channels, "calls": calls, "cuda_graph": cuda_graph,
                "forward": forward,
            }  # fmt: skip
            check_arguments(recordings, asked if data is not None else asked | opening)
            if data is None and ids is not None:
                raise ValueError(
                    "ids: expected None with recordings alone and no data, whose samples they name"
                )
            if data is not None:
                # Loaders that draw from torch's own generator come in the order of the recordings.
                with borrowed([], None, seed):
                    feed = open_data(data, **opening)
                    known = identify(ids, feed, **opening)
                    check_data(recordings, feed, known, **opening)
            fields = compare_recordings(
                recordings,
                measure=chosen,
                jackknife=jackknife,
                permutations=permutations,
                precision=precision,
                device=device,
                progress=progress,
            )
            of_recordings = SimilarityResult(**fields)
            of_recordings.warn(stacklevel=3)
            return of_recordings
        share = Share(processes.rank, processes.size)
        asked_of = partial(asked_of_models, names=tuple(members), recordings=recordings)
        unlike = list(unlike_data(tuple(members), recordings, inputs))
        layers, inputs, forward = (
            asked_of(argument, given[argument]) for argument in ("layers", "inputs", "forward")
        )
        feed = open_data(
            data,
            models=tuple(named),
            share=share,
            max_batches=max_batches,
            raw=_all_given(forward, len(named)),
            **opening,
        )
        plan = make_plan(named, layers=layers, inputs=inputs, forward=forward, paired=feed.paired)
        accumulating = chosen.accumulator if alone else partial(Several, list(several.values()))
        accumulator: Accumulator = accumulating(
            precision=precision,
            jackknife=jackknife,
            permutations=permutations,
            seed=seed,
            capacity=plan.n_layers
            + sum(len(recording.layers) for recording in recordings.values()),
        )
        named_so = " and ".join(several)
        _check_fit(named_so, accumulator, plan, feed, passes=passes, cuda_graph=cuda_graph)
        if cuda_graph and processes.size > 1:
            raise ValueError("cuda_graph: expected False with a process_group, got True")
        if permutations and maps in ("positions", "tokens"):
            raise ValueError(
                f"permutations: expected None for maps={maps!r}, whose rows cannot be permuted "
                f"without those of the same sample, got {permutations}"
            )
        place = None if device is None else usable_device(device)
        computes_on = place or device_of(plan.runs[0].model)
        autocast = autocast or autocast_around(computes_on)
        engine = Engine(
            plan.runs,
            accumulator,
            maps=maps,
            mask=mask,
            channels=channels,
            calls=calls,
            autocast=autocast,
            cuda_graph=cuda_graph,
            n_batches=feed.n_of_all,
            batch_size=feed.batch_size,
            seed=seed,
            playbacks=_playbacks(members, plan, accumulator, computes_on),
        )
        settings = settings_of(
            plan,
            feed,
            maps=maps,
            mask=mask,
            channels=channels,
            calls=calls,
            passes=passes,
            seed=seed,
            autocast=autocast,
            precision=precision,
            cuda_graph=cuda_graph,
            place=place,
        )
        if processes.size > 1:
            settings["processes"] = processes.size
        if max_batches is not None:
            settings["max_batches"] = max_batches
        known = identify(ids, feed, share=share, **opening)
        seen = Seen([], known, feed.check)
        if recordings:
            settings["ids"] = known.kinds
            check_recordings(recordings, chosen, accumulator, settings)

        of_each = [chosen] if alone else list(several.values())
        parts = Parts(
            tuple(members), recordings, plan, feed, of_each, accumulator, engine, settings, start,
            notes=unlike,
        )  # fmt: skip

        def result(*, bare: bool = False) -> Any:
            each_once = passes == 1 and not feed.replacement
            collected = collect(engine, accumulator, seen, together, each_once=each_once)
            made = together.of_first(lambda: parts.results(collected, bare=bare))
            return made[0] if alone else dict(zip(several, made, strict=True))

        about: dict[str, Any] = {}
        if processes.size > 1 or resume is not None:
            about = same_everywhere(settings, feed, data)
        if processes.size > 1:
            together.start(about)
        about |= {"measure": [repr(one) for one in of_each], "ids": known.kinds}
        keeping = kept_sums(resume, processes, about, engine, accumulator, every=every)
        with _partial_result_kept(engine, result, together):
            with keeping as sums, borrowed((run.model for run in plan.runs), place, seed), engine:
                shows = progress and processes.first
                _loop(
                    engine, feed, seen, together, settings, sums,
                    transforms=plan.transforms, progress=shows,
                )  # fmt: skip
            final: Any = result()
        if processes.first:
            for one in [final] if alone else final.values():
                one.warn(stacklevel=3)
        return final  # type: ignore[no-any-return]


def _first(measures: Mapping[str, Measure[Any]]) -> Measure[Any]:
    return next(iter(measures.values()))


def _alone(
    arguments: Mapping[str, Any], asked: Any, measure: Measure[Any], estimator: Estimator | None
) -> SimilarityResult:
    """The comparison by one of several measures, with the options that it has."""
    resampled = isinstance(measure, SampleMeasure)
    unused = {} if resampled else {"jackknife": None, "permutations": None}
    own = estimator if "estimator" in options_of_measure(measure) else None
    given = {**arguments, **unused, "measure": asked, "estimator": own}
    found: SimilarityResult = compare(
        given.pop("models"), given.pop("model_b"), given.pop("data"), **given
    )
    return found


def _playbacks(
    members: Mapping[str, Any], plan: Plan, accumulator: Accumulator, place: torch.device
) -> list[tuple[int, Playback]]:
    """Recordings among the members, and how many runs of models come before each."""
    found = []
    for position, (name, member) in enumerate(members.items()):
        if isinstance(member, Recording):
            earlier = list(members)[:position]
            before = sum(run.name in earlier for run in plan.runs)
            found.append((before, Playback(name, member, accumulator, place)))
    return found


def _all_given(forward: Any, n: int) -> bool:
    """Whether no model is run on inputs that the batch must tell."""
    if forward is None or callable(forward):
        return forward is not None
    each = forward.values() if isinstance(forward, Mapping) else forward
    return sum(one is not None for one in each) == n


def _check_fit(
    name: str,
    accumulator: Accumulator,
    plan: Plan,
    feed: Feed,
    *,
    passes: int,
    cuda_graph: bool,
) -> None:
    """Raises ValueError where the measures cannot be computed in this way."""
    if passes > 1 and not accumulator.samples_may_return:
        raise ValueError(
            f"passes: expected 1 for {name}, which needs each sample once, got {passes}"
        )
    if feed.replacement and not accumulator.samples_may_return:
        raise ValueError(
            f"data: expected each sample once, which {name} needs, got a loader whose sampler "
            "draws with replacement"
        )
    if cuda_graph and not accumulator.capturable:
        raise ValueError(
            f"cuda_graph: expected a measure from Grams of batches, such as cka, got {name}"
        )
    if cuda_graph and any(run.forward is not None for run in plan.runs):
        raise ValueError("cuda_graph: expected no forward=, whose inputs it does not know")
    if cuda_graph and plan.transforms:
        raise ValueError("cuda_graph: expected no inputs=, whose transforms run outside of it")
    if cuda_graph and feed.paired:
        raise ValueError("cuda_graph: expected the same data for all models, got a mapping")


@contextlib.contextmanager
def _partial_result_kept(
    engine: Engine, result: Callable[..., Any], together: Together
) -> Iterator[None]:
    """Gives an exception the values of the batches before as ``partial_result``."""
    try:
        yield
    except BaseException as error:
        alone = together.processes.size == 1
        if together.all_stopped(error) and (engine.n_batches or not alone):
            with undisturbed(), contextlib.suppress(Exception):
                error.partial_result = result(bare=True)  # type: ignore[attr-defined]
        raise


def _loop(
    engine: Engine,
    feed: Feed,
    seen: Seen,
    together: Together,
    settings: Mapping[str, Any],
    sums: Sums | None,
    *,
    transforms: bool,
    progress: bool,
) -> None:
    """Run all batches; of those too small for the measure, left out, the sizes are noted."""
    rank, size = together.processes.rank, together.processes.size
    number = -1
    for i, batch in shown(feed, "compare", progress=progress):
        number = rank + i * size
        seen.prints.look(batch)
        latest = seen.prints.latest
        whole = latest if sums is None else with_all(latest, batch, labels=transforms)
        if sums is not None and sums.has(number):
            few = sums.skip(batch, number, whole)
        else:
            few = _step(engine, batch, number, latest, settings, transforms=transforms)
            if sums is not None:
                sums.add(number, whole, few)
        if few is None:
            seen.prints.count(number)
        else:
            seen.dropped.append(few)
        together.end_batch()
    if sums is not None:
        sums.finish()
    together.end_batches()
    for playback in engine.playbacks:
        playback.finish(number + 1)
    if engine.n_batches == 0 and size == 1:
        raise diagnosis.no_batch(seen.dropped, engine.accumulator.min_samples)


def _step(
    engine: Engine,
    batch: Batch,
    number: int,
    digest: str,
    settings: Mapping[str, Any],
    *,
    transforms: bool,
) -> int | None:
    """Run all models on a batch; its rows where they are too few for the measure."""
    if engine.is_too_small(batch):
        return batch.n
    labels = digest_of_labels(batch) if engine.playbacks and transforms else ""
    for playback in engine.playbacks:
        playback.check(number, batch.n, digest, settings, labels)
    try:
        engine.step(batch, number)
    except TooFewRowsError as error:
        return error.rows
    return None
