"""What comparing and recording have in common: models borrowed, settings as plain data, notes."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from repsim_fast._core.buffers import buffers_kept
from repsim_fast._core.kept_memory import kept_memory
from repsim_fast._core.model_state import device_of, evaluating, gradients_set_aside, placed
from repsim_fast._core.randomness import private_rng
from repsim_fast.comparison import diagnosis
from repsim_fast.comparison.described import describe
from repsim_fast.comparison.plan import Plan
from repsim_fast.data.batches import Batch, Feed
from repsim_fast.similarity.base.accumulator import Similarities


@contextlib.contextmanager
def borrowed(models: Iterable[nn.Module], place: torch.device | None, seed: int) -> Iterator[None]:
    """Models in eval mode on the device, without gradients; as they were afterwards, and so are
    the global random generators. Memory of one batch is kept for the next."""
    models = list(models)
    devices = {place or device_of(model) for model in models}
    with contextlib.ExitStack() as stack:
        # Tensors made in inference mode could not be differentiated by an attack.
        stack.enter_context(torch.inference_mode(False))
        for device in devices:
            stack.enter_context(kept_memory(device))
        stack.enter_context(private_rng(devices, seed))
        stack.enter_context(gradients_set_aside(models))
        stack.enter_context(placed(models, place))
        stack.enter_context(buffers_kept(models))
        stack.enter_context(evaluating(models))
        yield


def shown(feed: Feed, title: str, *, progress: bool) -> Iterator[tuple[int, Batch]]:
    """Batches by number, with a bar of samples a second and the time left."""
    bar = tqdm(
        total=feed.n_batches,
        desc=title,
        unit="batch",
        leave=None,  # not below another bar
        disable=not progress,
    )
    with bar:
        samples, start = 0, perf_counter()
        for number, batch in enumerate(feed.batches):
            yield number, batch
            samples += batch.n
            if progress:
                rate = samples / (perf_counter() - start)
                bar.set_postfix_str(f"{rate:,.0f} samples/s", refresh=False)
            bar.update()


def settings_of(
    plan: Plan,
    feed: Feed,
    *,
    maps: Any,
    mask: Any,
    channels: Any,
    calls: str,
    passes: int,
    seed: int,
    autocast: torch.dtype | None,
    precision: str | None,
    cuda_graph: bool,
    place: torch.device | None,
) -> dict[str, Any]:
    """Arguments of a comparison or a recording as plain data, for whoever reads its result."""
    return {
        "data": feed.description,
        **plan.settings,
        "maps": describe(maps),
        "mask": None if mask is None else describe(mask),
        "channels": None if channels is None else describe(channels),
        "calls": calls,
        "batch_size": feed.batch_size,
        "order": feed.order,
        "passes": passes,
        "seed": seed,
        "autocast": None if autocast is None else str(autocast).removeprefix("torch."),
        "precision": precision or "float32",
        "cuda_graph": cuda_graph,
        "device": str(place or device_of(plan.runs[0].model)),
        "threads": torch.get_num_threads(),
        "weights": {name: run.weights for name, run in plan.run_of.items()},
    }


def notes_of(
    notes: Iterable[str],
    dropped: Sequence[int],
    *,
    sorted_by: str | None,
    replacement: bool,
    n_batches: int,
    estimator: str,
    min_samples: int,
) -> Iterator[str]:
    """What a reader must know of the way in which values were found.

    Args:
        notes: Those on models.
        dropped: Samples of batches that were too small.
        sorted_by: What the data come sorted by, of measures from batches.
        replacement: Whether a sample may have come several times.
        n_batches: Batches used.
        estimator: How values are estimated.
        min_samples: Samples that a batch must have.
    """
    yield from notes
    if sorted_by is not None:
        yield diagnosis.sorted_data(sorted_by)
    if replacement:
        yield diagnosis.with_replacement()
    if dropped:
        yield diagnosis.dropped(dropped, n_batches, estimator, min_samples)


def labelled(
    found: Similarities,
    rows: Mapping[str, Mapping[str, int]],
    notes: Iterable[str],
) -> dict[str, Any]:
    """What ``SimilarityResult`` has of the similarities of all pairs, with the names of layers.

    Args:
        found: Over the rows of an accumulator.
        rows: Of each model the row of each layer.
        notes: What one must know of the way to them.
    """
    order = [row for layers in rows.values() for row in layers.values()]
    first, second = np.ix_(order, order)

    def picked(values: Any) -> Any:
        if values is None:
            return None
        found = values.cpu().numpy()
        in_order = order == list(range(found.shape[-1]))
        return found if in_order else found[..., first, second]

    def by_layer(reasons: Mapping[int, str]) -> dict[str, dict[str, str]]:
        return {
            name: {layer: reasons[row] for layer, row in layers.items() if row in reasons}
            for name, layers in rows.items()
        }

    return {
        "models": tuple(rows),
        "layers": tuple(tuple(layers) for layers in rows.values()),
        "value": picked(found.value),
        "standard_error": picked(found.standard_error),
        "n_samples": found.n_samples,
        "n_batches": found.n_batches,
        "hsic": picked(found.hsic),
        "left_out": picked(found.left_out),
        "group_samples": found.group_samples,
        "no_error": found.no_error,
        "undefined": by_layer(found.undefined),
        "chance": picked(found.chance),
        "chance_note": found.chance_note,
        "notes": (*notes, *found.notes, *diagnosis.without_error(by_layer(found.no_error_of))),
    }
