"""Compare what models represent, layer by layer, in one pass over the data."""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from repsim_fast._core.checks import check_autocast, check_choice
from repsim_fast._core.model_state import (
    check_hookable,
    device_of,
    evaluating,
    gradients_set_aside,
    placed,
    unwrap,
    usable_device,
)
from repsim_fast.capture.features import Maps
from repsim_fast.capture.layers import LayerSpec, select_layers
from repsim_fast.comparison.engine import Engine, Run, Transform
from repsim_fast.comparison.result import SimilarityResult, versions
from repsim_fast.data.batches import Feed, open_data
from repsim_fast.ops import Precision
from repsim_fast.similarity import Measure
from repsim_fast.similarity.streaming.accumulator import (
    MEASURES,
    Accumulator,
    Estimator,
    of_all_samples,
)

__all__ = ["compare"]

Models: TypeAlias = "Sequence[nn.Module] | Mapping[str, nn.Module]"


def compare(
    models: Models | nn.Module,
    model_b: Any = None,
    data: Any = None,
    *,
    layers: LayerSpec | Sequence[LayerSpec] | Mapping[str, LayerSpec] = None,
    measure: str | Measure[Any] = "cka",
    estimator: Estimator = "unbiased",
    jackknife: int | None = None,
    inputs: Transform | Sequence[Transform | None] | Mapping[str, Transform] | None = None,
    batch_size: int = 128,
    passes: int = 1,
    device: torch.device | str | None = None,
    autocast: torch.dtype | None = None,
    precision: Precision | None = None,
    maps: Maps = "flatten",
    calls: Literal["all", "first"] = "all",
    cuda_graph: bool = False,
    names: Sequence[str] | None = None,
    progress: bool = False,
    seed: int = 0,
) -> SimilarityResult:
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
        data: ``ImageData``, a tensor (N, ...), a tuple (x, y) of tensors, a ``Dataset``, a
            ``DataLoader`` or any iterable of batches, each x or (x, y); x may be a mapping of
            keyword arguments of the models.
        layers: Layers of all models: names, patterns or a predicate, as for ``Capture``; or one
            such choice for each model, as a sequence of them or a mapping by model name. Default:
            all layers that :func:`~repsim_fast.capture.list_layers` gives a kind.
        measure: "cka", linear centred kernel alignment, in [0, 1] up to the noise of the estimate;
            1 means equal up to rotation and scale. Or any other of ``similarity.measure_names()``,
            or one with options, ``similarity.get_measure("svcca", components=20)``: these need all
            samples at once, so that features are kept, in files beyond 4 GiB.
        estimator: "unbiased" (HSIC₁, needs 4 samples a batch) or "biased"; of kernel alignments.
        jackknife: Groups of samples to leave out in turn for the standard errors of measures other
            than "cka", which takes as many times as long. Default: none for those, while those of
            "cka" come from its batches.
        inputs: What a model sees in place of the images: a callable (x, y) -> x, such as an attack
            ``functools.partial(attack, model)`` or a corruption, for all models, or one for each
            (None: the data as they are). It runs with gradients enabled, once a batch and before
            the forward pass; models that name the same callable are fed the same result.
        batch_size: Samples in a batch, where the data do not come in batches.
        passes: Times to go through the data, shuffled anew each time if more than once. Batches
            of several passes share samples, so that standard errors come out too small then.
        device: Where to compute; the models are moved there and back. Default: where they are.
        autocast: Dtype of automatic mixed precision for the forward passes. Default: none.
        precision: Precision of the Gram products: None for float32 (float64 for float64
            features), "bfloat16" (or better, on the CPU), or "tf32" on CUDA; see
            ``ops.centered_gram``.
        maps: Features of convolutional maps and tokens, as for ``Capture``.
        calls: "all" calls of a layer that is called several times in a pass, or only the "first".
        cuda_graph: Capture the forward passes and their Grams as a CUDA graph at the second batch,
            and replay it for batches like the one before. That saves the time between layers in
            which a GPU waits for Python; models must not wait for the GPU. Only for "cka" and
            without ``inputs``.
        names: Names of the models. Default: their class names, numbered if they are equal.
        progress: Show a progress bar.
        seed: Seed of the shuffled order, for several passes.

    Returns:
        The similarities of all pairs of layers, with standard errors from a jackknife over
        batches. An exception after one or more completed batches, also a keyboard interrupt, has
        an attribute ``partial_result``: the result up to there.

    Raises:
        ValueError: Unusable argument, no layer matched (the message shows what there is), empty
            data or no batch of 4 samples, models that do not give the same samples, or
            NaN or Inf in activations (the message names model, layer and batch).
        TypeError: An argument of the wrong type, or a scripted model.
        RuntimeError: The device does not exist, or models cannot be captured for ``cuda_graph``.

    Example:
        >>> import torch
        >>> from repsim_fast.compare import compare
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
    name, make = _measure(measure, jackknife)
    if passes > 1 and measure != "cka":
        raise ValueError(
            f"passes: expected 1 for {name}, which needs each sample once, got {passes}"
        )
    check_choice("estimator", estimator, ("unbiased", "biased"))
    check_autocast(autocast)
    named, data = _models_and_data(models, model_b, data, names)
    feed = open_data(data, batch_size=batch_size, passes=passes, seed=seed)
    choices = _per_model("layers", layers, tuple(named), _is_layer_choice)
    transforms = _per_model("inputs", inputs, tuple(named), callable)
    if cuda_graph and measure != "cka":
        raise ValueError(f"cuda_graph: expected measure 'cka', got {measure!r}")
    if cuda_graph and any(transform is not None for transform in transforms.values()):
        raise ValueError("cuda_graph: expected no inputs=, whose transforms run outside of it")
    place = None if device is None else usable_device(device)
    runs, run_of = _plan(named, choices, transforms)
    unique = [r.model for r in runs]
    accumulator = make(
        estimator=estimator,
        precision=precision,
        capacity=sum(r.n_layers for r in runs),
    )
    engine = Engine(
        runs, accumulator, maps=maps, calls=calls, autocast=autocast, cuda_graph=cuda_graph
    )
    settings = {
        "data": feed.description,
        "models": {name: _describe_model(model) for name, model in named.items()},
        "inputs": {name: _describe(t) for name, t in transforms.items() if t is not None},
        "layers": {name: _describe(c) for name, c in choices.items() if c is not None},
        "maps": _describe(maps),
        "calls": calls,
        "batch_size": batch_size,
        "passes": passes,
        "seed": seed,
        "autocast": None if autocast is None else str(autocast).removeprefix("torch."),
        "precision": precision or "float32",
        "cuda_graph": cuda_graph,
        "device": str(place or device_of(unique[0])),
        "threads": torch.get_num_threads(),
    }

    def result() -> SimilarityResult:
        estimate = engine.accumulator.estimate()
        rows = [row for r in run_of.values() for row in r.rows.values()]
        first, second = np.ix_(rows, rows)

        def labelled(values: Tensor | None) -> Any:
            return None if values is None else values.cpu().numpy()[..., first, second]

        return SimilarityResult(
            models=tuple(run_of),
            layers=tuple(tuple(r.rows) for r in run_of.values()),
            value=labelled(estimate.value),
            standard_error=labelled(estimate.standard_error),
            measure=name,
            estimator=getattr(accumulator, "description", estimator),
            n_samples=estimate.n_samples,
            n_batches=estimate.n_batches,
            settings={**settings, **_used(accumulator)},
            versions=versions(),
            seconds={"total": perf_counter() - start, **engine.seconds},
            hsic=labelled(estimate.hsic),
            left_out=labelled(estimate.left_out),
            group_samples=estimate.group_samples,
        )

    with contextlib.ExitStack() as stack:
        # Tensors made in inference mode could not be differentiated by an attack.
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(gradients_set_aside(unique))
        stack.enter_context(placed(unique, place))
        stack.enter_context(evaluating(unique))
        stack.enter_context(engine)
        try:
            dropped = _loop(engine, feed, progress=progress)
        except BaseException as error:
            if engine.n_batches:
                with contextlib.suppress(Exception):
                    error.partial_result = result()  # type: ignore[attr-defined]
            raise
    if dropped:
        warnings.warn(
            f"dropped {len(dropped)} of {len(dropped) + engine.n_batches} batches, of "
            f"{', '.join(map(str, dropped))} samples: estimator {estimator!r} needs at least "
            f"{accumulator.min_samples} in a batch",
            stacklevel=2,
        )
    final = result()
    if final.constant_layers:
        constant = [f"{layer!r} of model {model!r}" for model, layer in final.constant_layers]
        some = ", ".join(constant[:10])
        some += f" and {len(constant) - 10} more (.constant_layers)" if len(constant) > 10 else ""
        reason = getattr(accumulator, "reason", "")
        what = (
            f"layers {some} ({reason})"
            if reason
            else f"layers that do not vary over the data, or too little for their dtype: {some}"
        )
        warnings.warn(f"similarity is undefined (NaN) for {what}", stacklevel=2)
    return final


def _loop(engine: Engine, feed: Feed, *, progress: bool) -> list[int]:
    """Run all batches; returns the sizes of those too small for the estimator, left out."""
    dropped: list[int] = []
    with tqdm(total=feed.n_batches, desc="compare", unit="batch", disable=not progress) as bar:
        for number, batch in enumerate(feed.batches):
            if engine.is_too_small(batch):
                dropped.append(batch.n)
            else:
                engine.step(batch, number)
            bar.update()
    if engine.n_batches == 0:
        got = f"batches of {', '.join(map(str, dropped))}" if dropped else "none: data is empty"
        raise ValueError(
            f"data must have a batch of at least {engine.accumulator.min_samples} samples, "
            f"got {got}"
        )
    return dropped


def _measure(
    measure: str | Measure[Any], groups: int | None
) -> tuple[str, Callable[..., Accumulator]]:
    """Name of a measure, and what makes its accumulator."""
    if not isinstance(measure, Measure):
        check_choice("measure", measure, MEASURES)
    name = measure.info.name if isinstance(measure, Measure) else measure
    if groups is None:
        return name, of_all_samples(measure) if isinstance(measure, Measure) else MEASURES[name]
    if name == "cka":
        raise ValueError("jackknife: expected None for cka, which has errors from its batches")
    if not isinstance(groups, int):
        raise TypeError(f"jackknife: expected an int, got {type(groups).__name__}")
    if groups < 2:
        raise ValueError(f"jackknife: expected at least 2 groups, got {groups}")
    return name, functools.partial(of_all_samples(measure), groups=groups)


def _models_and_data(
    models: Models | nn.Module, model_b: Any, data: Any, names: Sequence[str] | None
) -> tuple[dict[str, nn.Module], Any]:
    """Named models, unwrapped, and the data, from either form of the call."""
    if isinstance(model_b, nn.Module):
        if not isinstance(models, nn.Module):
            raise TypeError("models must be one module when model_b is given, got several")
        found: list[Any] = [models, model_b]
    else:
        if model_b is not None and data is not None:
            raise TypeError(f"model_b must be a torch.nn.Module, got {type(model_b).__name__}")
        data = model_b if data is None else data
        if isinstance(models, Mapping):
            names = names or tuple(models)
            models = list(models.values())
        if not isinstance(models, (nn.Module, Iterable)) or isinstance(models, (str, Tensor)):
            raise TypeError(
                "models must be a torch.nn.Module, or a sequence or mapping of them, "
                f"got {type(models).__name__}"
            )
        found = [models] if isinstance(models, nn.Module) else list(models)
    if data is None:
        raise TypeError("data is missing: compare(model_a, model_b, data) or compare(models, data)")
    if not found:
        raise ValueError("models must be at least one, got none")
    unwrapped = [check_hookable(unwrap(check_hookable(model))) for model in found]
    return dict(zip(_names(unwrapped, names), unwrapped, strict=True)), data


def _names(models: Sequence[nn.Module], names: Sequence[str] | None) -> list[str]:
    if names is not None:
        if len(names) != len(models) or len(set(names)) != len(names) or isinstance(names, str):
            raise ValueError(
                f"names must be {len(models)} different ones, one for each model, got {names!r}"
            )
        return list(names)
    types = [type(model).__name__ for model in models]
    return [
        name if types.count(name) == 1 else f"{name} {types[:i].count(name) + 1}"
        for i, name in enumerate(types)
    ]


def _is_layer_choice(value: Any) -> bool:
    if isinstance(value, str) or callable(value) or not isinstance(value, Iterable):
        return True
    return all(isinstance(v, str) for v in value)


def _per_model(
    argument: str, value: Any, names: Sequence[str], is_one: Callable[[Any], bool]
) -> dict[str, Any]:
    """An argument that is given once for all models, or for each, by order or by name."""
    if isinstance(value, Mapping):
        if unknown := [name for name in value if name not in names]:
            raise ValueError(f"{argument}: no model is named {unknown[0]!r}; there are {names}")
        return {name: value.get(name) for name in names}
    if value is None or is_one(value):
        return dict.fromkeys(names, value)
    if not isinstance(value, Sequence):
        raise TypeError(
            f"{argument} must be one for all models, or a sequence or mapping of one for each, "
            f"got {value!r}"
        )
    if len(value) != len(names):
        raise ValueError(
            f"{argument} must be one for all models or one for each of {len(names)}, "
            f"got {len(value)}"
        )
    return dict(zip(names, value, strict=True))


def _plan(
    models: Mapping[str, nn.Module], layers: Mapping[str, Any], inputs: Mapping[str, Any]
) -> tuple[list[Run], dict[str, Run]]:
    """The runs to do, and which one each model's layers come from: equal runs are done once."""
    runs: dict[tuple[Any, ...], Run] = {}
    run_of: dict[str, Run] = {}
    for name, model in models.items():
        try:
            chosen = select_layers(model, layers[name])
        except ValueError as error:
            raise ValueError(f"model {name!r}: {error}") from None
        run = Run(model, name, layers[name], inputs[name], len(chosen))
        run_of[name] = runs.setdefault((id(model), id(inputs[name]), tuple(chosen.items())), run)
    return list(runs.values()), run_of


def _used(accumulator: Accumulator) -> dict[str, str]:
    """What Gram products were taken in, which may be better than the precision asked for."""
    products = getattr(accumulator, "products", None)  # other measures choose for themselves
    return {} if products is None else {"products": products}


def _describe_model(model: nn.Module) -> str:
    return f"{type(model).__name__}, {sum(p.numel() for p in model.parameters()):,} parameters"


def _describe(value: Any) -> str:
    """A short text for an argument, without the addresses that a repr of a function has."""
    if isinstance(value, functools.partial):
        return _describe(value.func)
    if isinstance(value, str) or not callable(value):
        return value if isinstance(value, str) else ", ".join(value)
    if hasattr(value, "__name__"):
        return str(value.__name__)
    text = repr(value)
    return type(value).__name__ if " at 0x" in text else text
