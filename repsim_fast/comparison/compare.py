"""Compare what models represent, layer by layer, in one pass over the data."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from repsim_fast._core.checks import check_autocast
from repsim_fast._core.model_state import (
    buffers_kept,
    device_of,
    evaluating,
    gradients_set_aside,
    placed,
    usable_device,
)
from repsim_fast._core.randomness import private_rng
from repsim_fast._core.signals import undisturbed
from repsim_fast._core.versions import versions
from repsim_fast.capture import ChannelsOf, LayerSpec, Maps, MaskSpec
from repsim_fast.comparison import diagnosis
from repsim_fast.comparison.engine import Engine
from repsim_fast.comparison.intake import TooFewRowsError
from repsim_fast.comparison.plan import (
    Forward,
    Models,
    Plan,
    Transform,
    choose_measures,
    describe,
    make_plan,
    models_and_data,
)
from repsim_fast.comparison.result import SimilarityResult
from repsim_fast.data.batches import Feed, open_data
from repsim_fast.data.fingerprint import Fingerprint, digest_of
from repsim_fast.ops import Precision
from repsim_fast.similarity import Measure
from repsim_fast.similarity.base.accumulator import Accumulator, Similarities
from repsim_fast.similarity.base.estimator import Estimator
from repsim_fast.similarity.streaming.several import Several

if TYPE_CHECKING:
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


class Options(OptionsOfAny, total=False):
    """Keyword arguments of :func:`compare`."""

    measure: str | Measure[Any]


@overload
def compare(
    models: nn.Module, model_b: nn.Module, data: Any, **options: Unpack[Options]
) -> SimilarityResult: ...
@overload
def compare(
    models: Models | nn.Module, data: Any, /, **options: Unpack[Options]
) -> SimilarityResult: ...
@overload
def compare(
    models: Models | nn.Module, *, data: Any, **options: Unpack[Options]
) -> SimilarityResult: ...


@overload
def compare(
    models: Models | nn.Module,
    model_b: Any = None,
    data: Any = None,
    *,
    measure: list[Any] | tuple[Any, ...],
    **options: Unpack[OptionsOfAny],
) -> dict[str, SimilarityResult]: ...


def compare(
    models: Models | nn.Module,
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

    Args:
        models: The first model, or all of them: a sequence or a mapping {name: module}, of one or
            more. They are run in eval mode without gradients and come back as they were, every
            module's own mode included. The same module on the same inputs is run once.
        model_b: The second model; left out (``data`` takes its place) where ``models`` is all.
        data: ``ImageData``, a tensor or array (N, ...), a tuple (x, y) or a mapping of them by the
            names of the models' arguments, a ``Dataset``, a ``DataLoader`` or any iterable of
            batches: x, (x, y), (x, y, numbers of the samples) or mappings. x is a tensor or array,
            a list of images, or a mapping of keyword arguments of the models, of which labels and
            texts that a model has no argument for are left out. Labels may be anything; they are
            for ``inputs``. Or, for inputs that differ between models, such as those of two
            tokenisers, a mapping {name of a model: one of these}: the same samples in the same
            order for all.
        layers: Layers of all models: names, patterns or a predicate, as for ``Capture``; or one
            such choice for each model, as a sequence of them or a mapping by model name. Default:
            all layers that :func:`~repsim_fast.capture.list_layers` gives a kind.
        measure: "cka", linear centred kernel alignment, in [0, 1] up to the noise of the estimate;
            1 means equal up to rotation and scale. Or any other of ``similarity.measure_names()``,
            or one with options, ``similarity.get_measure("svcca", components=20)``: these need all
            samples at once, so that features are kept, in files beyond 4 GiB. Or a list of several,
            which are computed in one pass and share the samples kept; ``jackknife``,
            ``permutations`` and ``estimator`` are then for those that have them.
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
            (None: the data as they are). It runs with gradients enabled, once a batch and before
            the forward pass; models that name the same callable are fed the same result.
        forward: What runs a model on a batch, (model, batch) -> anything, where batches are
            special: a callable for all models, or one for each. ``batch`` is what the data give, of
            any structure, arrays as tensors, mappings as dicts, on the model's device.
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
        autocast: Dtype of automatic mixed precision for the forward passes. Default: none.
        precision: Precision of the Gram products: None for float32 (float64 for float64
            features), "bfloat16" (or better, on the CPU), or "tf32" on CUDA; see
            ``ops.centered_gram``.
        maps: Features of convolutional maps and tokens, as for ``Capture``: "flatten", "pool",
            "positions"; "tokens" (each real token a sample), "mean", "cls" and "last" (one row a
            sample, from its real tokens); or a callable. But for callables, layers that return
            their samples elsewhere are put right first: time before samples, the windows or tokens
            of a sample as rows (they become positions), views of all samples one after the other
            (they become channels). Before the first batch, models whose code is not known are run
            on a few samples of it, one of them twice and in other orders, to find out. By default,
            layers whose rows are not samples, as those of experts or in an order of the layer's,
            are left out with a warning that says why.
        mask: Which tokens are real, as for ``Capture``. Default: "attention_mask" among the inputs.
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
        seed: Seed of the random order, of permutations, and of random numbers that models draw;
            the global generators come back as they were.

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
    start = perf_counter()
    chosen = choose_measures(measure, estimator)
    check_autocast(autocast)
    named, data = models_and_data(models, model_b, data, names)
    feed = open_data(
        data,
        batch_size=batch_size,
        passes=passes,
        shuffle=shuffle,
        seed=seed,
        models=tuple(named),
        max_batches=max_batches,
        raw=_all_given(forward, len(named)),
    )
    plan = make_plan(named, layers=layers, inputs=inputs, forward=forward, paired=feed.paired)
    alone = not isinstance(measure, (list, tuple))
    accumulating = next(iter(chosen.values())).accumulator if alone else _several(chosen)
    accumulator = accumulating(
        precision=precision,
        jackknife=jackknife,
        permutations=permutations,
        seed=seed,
        capacity=plan.n_layers,
    )
    _check_fit(" and ".join(chosen), accumulator, plan, feed, passes=passes, cuda_graph=cuda_graph)
    if permutations and maps in ("positions", "tokens"):
        raise ValueError(
            f"permutations: expected None for maps={maps!r}, whose rows cannot be permuted without "
            f"those of the same sample, got {permutations}"
        )
    place = None if device is None else usable_device(device)
    engine = Engine(
        plan.runs,
        accumulator,
        maps=maps,
        mask=mask,
        channels=channels,
        calls=calls,
        autocast=autocast,
        cuda_graph=cuda_graph,
    )
    settings = {
        "data": feed.description,
        **plan.settings,
        "maps": describe(maps),
        "mask": None if mask is None else describe(mask),
        "channels": None if channels is None else describe(channels),
        "calls": calls,
        "batch_size": feed.batch_size,
        "order": feed.order,
        "passes": passes,
        "max_batches": max_batches,
        "seed": seed,
        "autocast": None if autocast is None else str(autocast).removeprefix("torch."),
        "precision": precision or "float32",
        "cuda_graph": cuda_graph,
        "device": str(place or device_of(plan.runs[0].model)),
        "threads": torch.get_num_threads(),
        "weights": {
            name: digest_of([*model.parameters(), *model.buffers()])
            for name, model in plan.models.items()
        },
    }

    dropped: list[int] = []  # samples of batches too small for the measure
    seen = Fingerprint()

    def results(*, bare: bool = False) -> dict[str, SimilarityResult]:
        notes = tuple(_notes(engine, feed, dropped))
        return {
            name: _result(one, how, plan, engine, values, settings, start, notes, seen)
            for (name, one), (how, values) in zip(
                chosen.items(), _computed(accumulator, bare=bare), strict=True
            )
        }

    def result(*, bare: bool = False) -> Any:
        made = results(bare=bare)
        return next(iter(made.values())) if alone else made

    with _partial_result_kept(engine, result):
        with _borrowed(plan, place, seed), engine:
            _loop(engine, feed, dropped, seen, progress=progress)
        final = results()
    each = ((*one.notes, *diagnosis.undefined(one.undefined)) for one in final.values())
    for note in dict.fromkeys(note for notes in each for note in notes):
        warnings.warn(note, stacklevel=2)
    return next(iter(final.values())) if alone else final


def _computed(accumulator: Accumulator, *, bare: bool) -> list[tuple[str, Similarities]]:
    """Of each measure how it was estimated, and its values."""
    if isinstance(accumulator, Several):
        descriptions = [one.description for one in accumulator.members]
        return list(zip(descriptions, accumulator.compute_all(bare=bare), strict=True))
    return [(accumulator.description, accumulator.compute(bare=bare))]


def _several(measures: Mapping[str, Measure[Any]]) -> Callable[..., Several]:
    return partial(Several, list(measures.values()))


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
def _borrowed(plan: Plan, place: torch.device | None, seed: int) -> Iterator[None]:
    """Models in eval mode on the device, without gradients; as they were afterwards, and so are
    the global random generators."""
    models = [run.model for run in plan.runs]
    devices = {place or device_of(model) for model in models}
    with contextlib.ExitStack() as stack:
        # Tensors made in inference mode could not be differentiated by an attack.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(private_rng(devices, seed))
        stack.enter_context(gradients_set_aside(models))
        stack.enter_context(placed(models, place))
        stack.enter_context(buffers_kept(models))
        stack.enter_context(evaluating(models))
        yield


@contextlib.contextmanager
def _partial_result_kept(engine: Engine, result: Callable[..., Any]) -> Iterator[None]:
    """Gives an exception the values of the batches before as ``partial_result``."""
    try:
        yield
    except BaseException as error:
        if engine.n_batches:
            with undisturbed(), contextlib.suppress(Exception):
                error.partial_result = result(bare=True)  # type: ignore[attr-defined]
        raise


def _loop(
    engine: Engine, feed: Feed, dropped: list[int], seen: Fingerprint, *, progress: bool
) -> None:
    """Run all batches; the sizes of those too small for the measure, left out, go to dropped."""
    with tqdm(total=feed.n_batches, desc="compare", unit="batch", disable=not progress) as bar:
        for number, batch in enumerate(feed.batches):
            if engine.is_too_small(batch):
                dropped.append(batch.n)
            else:
                try:
                    engine.step(batch, number)
                    seen.add(batch)
                except TooFewRowsError as error:
                    dropped.append(error.rows)
            bar.update()
    if engine.n_batches == 0:
        raise diagnosis.no_batch(dropped, engine.accumulator.min_samples)


def _notes(engine: Engine, feed: Feed, dropped: Sequence[int]) -> Iterator[str]:
    """What a reader must know of the way in which the values were found."""
    yield from engine.notes
    if feed.check is not None and engine.accumulator.samples_may_return and engine.n_batches > 1:
        yield from diagnosis.sorted_data(feed.check)
    if feed.replacement:
        yield diagnosis.with_replacement()
    if dropped:
        estimator, least = engine.accumulator.description, engine.accumulator.min_samples
        yield diagnosis.dropped(dropped, engine.n_batches, estimator, least)


def _result(
    measure: Measure[Any],
    description: str,
    plan: Plan,
    engine: Engine,
    found: Similarities,
    settings: Mapping[str, Any],
    start: float,
    notes: tuple[str, ...],
    seen: Fingerprint,
) -> SimilarityResult:
    """What the batches so far give, with the names of models and layers."""
    rows = [row for run in plan.run_of.values() for row in run.kept.values()]
    first, second = np.ix_(rows, rows)

    def labelled(values: Tensor | None) -> Any:
        return None if values is None else values.cpu().numpy()[..., first, second]

    def by_layer(reasons: Mapping[int, str]) -> dict[str, dict[str, str]]:
        return {
            name: {layer: reasons[row] for layer, row in run.kept.items() if row in reasons}
            for name, run in plan.run_of.items()
        }

    return SimilarityResult(
        models=tuple(plan.run_of),
        layers=tuple(tuple(run.kept) for run in plan.run_of.values()),
        value=labelled(found.value),
        standard_error=labelled(found.standard_error),
        measure=measure.info.name,
        estimator=description,
        n_samples=found.n_samples,
        n_batches=found.n_batches,
        settings={**settings, **found.settings},
        versions=versions(),
        seconds={"total": perf_counter() - start, **engine.seconds},
        hsic=labelled(found.hsic),
        left_out=labelled(found.left_out),
        group_samples=found.group_samples,
        no_error=found.no_error,
        undefined=by_layer(found.undefined),
        chance=labelled(found.chance),
        chance_note=found.chance_note,
        notes=(*notes, *found.notes, *diagnosis.without_error(by_layer(found.no_error_of))),
        order_digest=seen.order,
        sample_digests=seen.samples,
    )
