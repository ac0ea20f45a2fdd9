"""What is wrong with a batch: which model, which layer, which values. Messages name all three."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.nested import tensors_in
from repsim_fast.capture import Capture, modules_by_layer
from repsim_fast.comparison.plan import Run
from repsim_fast.data.fingerprint import Fingerprint
from repsim_fast.similarity.base.accumulator import NotFiniteError

OF_A_FORWARD_PASS = (
    RuntimeError, AssertionError, ValueError, TypeError, AttributeError, KeyError, IndexError
)  # fmt: skip
"""What models raise on inputs that they were not made for."""


def from_a_hook(error: Exception) -> bool:
    """Whether it says what is wrong with a layer or a mask, and not with a model's inputs."""
    frame = error.__traceback__
    while frame is not None and not isinstance(error, RuntimeError):
        if frame.tb_frame.f_globals.get("__name__", "").startswith("repsim_fast.capture."):
            return True
        frame = frame.tb_next
    return False


def failed(run: Run, x: Any, number: int, error: Exception) -> RuntimeError:
    """A model that raised in its forward pass."""
    return RuntimeError(
        f"model {run.name!r} failed in batch {number} on inputs {_outline(x)}"
        f"{_weights(run.model)}: {_said(error)}{_type_hint(x, run.model)}"
    )


def _said(error: Exception) -> str:
    """The error's text, with its type where that is one of a slip in code."""
    if isinstance(error, (RuntimeError, AssertionError, ValueError)):
        return str(error)
    return f"{type(error).__name__}: {error}"


def _type_hint(x: Any, model: nn.Module) -> str:
    """What to do about images of another type than the weights."""
    weights = next(model.parameters(), None)
    images = [one for one in tensors_in(x) if one.ndim == 4]
    if weights is None or not images or images[0].dtype == weights.dtype:
        return ""
    if images[0].dtype == torch.uint8:
        return "; images are wanted in [0, 1]: images.float() / 255"
    return (
        f"; images are wanted as {_dtype(weights.dtype)}: images.to(torch.{_dtype(weights.dtype)})"
    )


def out_of_memory(error: BaseException) -> bool:
    """Whether the machine's memory was too small, for which torch has an error of its own on a GPU
    alone."""
    return isinstance(error, MemoryError) or "allocate memory" in str(error)


def too_large(n: int, number: int, error: BaseException) -> RuntimeError:
    """A batch that the memory does not hold."""
    return RuntimeError(
        f"out of memory in batch {number} of {n:,} samples: measures from products of samples "
        f"take n x n numbers a layer; a smaller batch_size needs less "
        f"({str(error).splitlines()[0][:200]})"
    )


def check_features(run: Run, name: str, features: Any) -> None:
    """What a user's own ``maps`` returned.

    Raises:
        TypeError: No floating-point tensor.
        ValueError: No matrix.
    """
    if not (isinstance(features, Tensor) and features.is_floating_point()):
        kind = getattr(features, "dtype", type(features).__name__)
        raise TypeError(
            f"maps must give floating-point tensors, got {kind} for layer {name!r} of model "
            f"{run.name!r}"
        )
    if features.ndim != 2:
        raise ValueError(
            f"maps must give a matrix (n, p), got shape {tuple(features.shape)} for layer "
            f"{name!r} of model {run.name!r}"
        )


def unfit(run: Run, name: str, why: str, hint: str = "") -> ValueError:
    """A layer that does not bring features of every sample in every batch, and was asked for."""
    return ValueError(
        f"layer {name!r} of model {run.name!r}: {why}; in every batch, all layers of all models "
        f"must have the same samples{hint}"
    )


def check_first_pass(run: Run) -> None:
    """Raises ValueError where layers that were asked for by name are missing."""
    for name in _missing(run):
        raise ValueError(
            f"layers: {name!r} of model {run.name!r} was never called, or returned no "
            "floating-point tensor"
        )


def check_any_layer(run: Run) -> None:
    """Raises ValueError where no layer is left."""
    if not run.kept:
        why = (
            f"features of each sample in every batch: {_some_skipped(run)}"
            if run.skipped
            else "a floating-point tensor: none was called, or they return others"
        )
        parts = (
            "; where rows are nodes of graphs or other parts of samples, maps='positions' takes "
            "each as one"
            if any("rows where" in reason for reason in run.skipped.values())
            else ""
        )
        raise ValueError(f"no layer of model {run.name!r} returned {why}{parts}")


def left_out(run: Run) -> str:
    """That some layers of a model are left out."""
    return (
        f"model {run.name!r}: {len(run.skipped)} layers left out, which do not return features of "
        f"each sample in every batch: {_some_skipped(run)}"
    )


def stateful(run: Run) -> str:
    """That a model's passes change its buffers."""
    some = ", ".join(run.changing[:5]) + ", ..." * (len(run.changing) > 5)
    return (
        f"model {run.name!r}: its passes change its buffers ({some}); every batch is run with the "
        "values that the model came with"
    )


def coarse(run: Run, half: torch.dtype, layers: Sequence[str]) -> str:
    """That features in float32 hold the rounding of passes in 16 bits."""
    some = ", ".join(layers[:3]) + ", ..." * (len(layers) > 3)
    return (
        f"model {run.name!r} runs in {str(half).removeprefix('torch.')}, whose rounding is also in "
        f"features that are float32 (means of maps, outputs of norms; {some}): cca and others to "
        "which small directions count may be far off"
    )


def not_finite(
    error: NotFiniteError,
    runs: Sequence[Run],
    number: int,
    forward: Callable[[Run], None],
) -> ValueError:
    """Run the first model at fault once more, and say what its first bad layer returned.

    Args:
        error: Names the layers by their rows.
        runs: All runs.
        number: Number of the batch.
        forward: Runs a model on the batch, as before.
    """
    first = min(error.layers)
    run = next(run for run in runs if first in run.rows.values())
    name = next(name for name, row in run.rows.items() if row == first)
    found: list[str] = []

    def note(called: str, activation: Tensor) -> None:
        if called == name:
            found.append(_anomaly(activation))

    with Capture(run.model, run.hooked, maps=None, on_activation=note):
        forward(run)
    others = f"; {len(error.layers) - 1} later layers too" if len(error.layers) > 1 else ""
    return ValueError(
        f"layer {name!r} of model {run.name!r} in batch {number} (counted from 0): "
        f"{''.join(found)}{others}"
    )


def dropped(sizes: Sequence[int], used: int, estimator: str, least: int) -> str:
    """That batches were too small."""
    return (
        f"dropped {len(sizes)} of {len(sizes) + used} batches, of "
        f"{_sizes(sizes)} samples: estimator {estimator!r} needs at least {least} in "
        "a batch"
    )


def no_batch(sizes: Sequence[int], least: int) -> ValueError:
    """Data without a batch that could be used."""
    got = f"batches of {_sizes(sizes)}" if sizes else "none: data is empty"
    hint = (
        "; where these are single samples: torch.utils.data.DataLoader(data, batch_size=...)"
        if sizes
        else ""
    )
    return ValueError(f"data must have a batch of at least {least} samples, got {got}{hint}")


def _sizes(sizes: Sequence[int]) -> str:
    """The different ones, the first five of them."""
    different = sorted(set(sizes))
    return ", ".join(map(str, different[:5])) + ", ..." * (len(different) > 5)


def sorted_data(by: str) -> str:
    """That samples came in an order of their own, and what that does to the estimate."""
    return (
        f"data come sorted by their {by}: samples of a batch are more alike than "
        "others, and what tells batches apart is lost to an estimate from batches, which makes "
        "layers look less or more alike than they are, by any amount; shuffle the loader, or pass "
        "the data set itself, which is then read in random order"
    )


def with_replacement() -> str:
    """That samples come again, and what that does to the standard errors."""
    return (
        "the loader's sampler draws with replacement: a sample that comes several times counts as "
        "several, so that standard errors are too small, and those of one batch are taken for "
        "different ones; draw without replacement, or pass the data set itself"
    )


def several_times(seen: Fingerprint, *, passes: int, replacement: bool) -> list[str]:
    """That equal samples come again, where nothing was asked for or said that explains it."""
    if passes > 1 or replacement or not seen.has_repetitions:
        return []
    return [
        f"{seen.repeated:.0%} of the samples come several times and count as several, so that "
        "standard errors are too small; where an IterableDataset gives each worker of its loader "
        "all samples, torch.utils.data.get_worker_info() tells workers their parts"
    ]


def read_twice(one: int, other: int) -> str:
    """That two processes have read the same samples."""
    return (
        f"processes {one} and {other} have read some of the same samples, which count twice, and "
        "perhaps not others: the data come in another order in each process, or have samples twice"
    )


def of_one_process(processes: int) -> str:
    """That another process has another result."""
    return (
        f"the loader's DistributedSampler gives this process the samples of 1 of {processes}, and "
        "each of them has a result of its own; one result of all samples: a loader without the "
        "sampler, and process_group=torch.distributed.group.WORLD"
    )


def undefined(reasons: Mapping[str, Mapping[str, str]]) -> list[str]:
    """That layers have no value, and why, by model and layer; one text for each reason."""
    return [
        f"similarity is undefined (NaN) for layers {layers}: {reason}"
        for reason, layers in _by_reason(reasons, " (.undefined)").items()
    ]


def without_error(reasons: Mapping[str, Mapping[str, str]]) -> list[str]:
    """That layers have values without a standard error, and why; one text for each reason."""
    return [
        f"standard errors of layers {layers} are not known (NaN): {reason}"
        for reason, layers in _by_reason(reasons).items()
    ]


def _by_reason(reasons: Mapping[str, Mapping[str, str]], rest: str = "") -> dict[str, str]:
    """For each reason the layers that have it, the first ten by name, and where the rest is."""
    found: dict[str, list[str]] = {}
    for model, layers in reasons.items():
        for layer, reason in layers.items():
            found.setdefault(reason, []).append(f"{layer!r} of model {model!r}")
    return {
        reason: ", ".join(some[:10])
        + (f" and {len(some) - 10} more{rest}" if len(some) > 10 else "")
        for reason, some in found.items()
    }


def _missing(run: Run) -> list[str]:
    """Layers that were asked for by their names and did not come."""
    asked = [run.layers] if isinstance(run.layers, str) else run.layers
    by_name = asked if isinstance(asked, (list, tuple)) else ()
    modules = modules_by_layer(run.model) if by_name else {}
    labels = {name: name.removesuffix("#1") for name in by_name}
    return [
        name
        for name, label in labels.items()
        if label.partition("#")[0] in modules and label not in run.rows
    ]


def _some_skipped(run: Run) -> str:
    some = ", ".join(f"{name!r} ({why})" for name, why in list(run.skipped.items())[:5])
    return some + (", ..." if len(run.skipped) > 5 else "")


def _anomaly(activation: Tensor) -> str:
    nan = int(activation.isnan().sum())
    inf = int(activation.isinf().sum())
    if nan or inf:
        return f"activations have {nan} NaN and {inf} Inf among {activation.numel()} values"
    return (
        "activations are finite but too large for their Gram matrix, up to "
        f"{float(activation.abs().max()):.3g}"
    )


def _outline(x: Any) -> str:
    """Shapes and dtypes of a model's inputs."""
    if isinstance(x, Tensor):
        return f"{tuple(x.shape)} {_dtype(x.dtype)}"
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{key}: {_outline(value)}" for key, value in x.items()) + "}"
    if isinstance(x, (tuple, list)):
        return f"({', '.join(map(_outline, x))})"
    return type(x).__name__


def _weights(model: nn.Module) -> str:
    """The dtype of a model's weights, for a message."""
    first = next(model.parameters(), None)
    return "" if first is None else f" with weights {_dtype(first.dtype)}"


def _dtype(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
