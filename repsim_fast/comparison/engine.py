"""The loop of a comparison: batches through models, features of layers into an accumulator."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Literal, TypeAlias
from weakref import ref

import torch
from torch import Tensor, nn

from repsim_fast._core.cuda_graph import GraphedLoop
from repsim_fast._core.model_state import device_of
from repsim_fast.capture import Capture, run
from repsim_fast.capture.features import Maps, feature_map
from repsim_fast.capture.layers import LayerSpec
from repsim_fast.data.batches import Batch, to_device
from repsim_fast.similarity.streaming.accumulator import Accumulator, NotFiniteError

Transform: TypeAlias = Callable[[Any, "Tensor | None"], Any]


@dataclass(eq=False)
class Run:
    """One forward pass a batch: a model, its inputs and its layers.

    ``rows`` has the accumulator's number of each layer, in order of execution.
    """

    model: nn.Module
    name: str
    layers: LayerSpec
    transform: Transform | None
    n_layers: int  # that are hooked; a layer called twice counts once
    rows: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    taken: int = 0  # layers of the current batch
    running: bool = False  # its own forward pass, the only one whose activations count


class Engine:
    """Feeds batches to models and what their layers return to the accumulator.

    Args:
        runs: What to run on every batch, in this order.
        accumulator: Where features go.
        maps: What becomes of maps and tokens, as in ``Capture``.
        calls: Which calls of a layer count, as in ``Capture``.
        autocast: Dtype of automatic mixed precision, or None for none.
        cuda_graph: Whether the passes of batches like the one before are replayed as a CUDA graph.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        accumulator: Accumulator,
        *,
        maps: Maps,
        calls: Literal["all", "first"],
        autocast: torch.dtype | None,
        cuda_graph: bool = False,
    ) -> None:
        self.runs = runs
        self.accumulator = accumulator
        self.seconds = {"inputs": 0.0, "forward": 0.0, "pairs": 0.0}
        self.n_batches = 0
        self._rows_per_sample_known = maps in ("flatten", "pool")
        self._expected: int | None = None  # rows of the current batch
        self._size = 0
        self._autocast = autocast
        to_features = feature_map(maps, any_order=accumulator.any_feature_order)
        self._maps_are_ours = not callable(maps)
        self._captures = [
            Capture(
                r.model, r.layers, maps=None, calls=calls, on_activation=self._taker(r, to_features)
            )
            for r in runs
        ]
        self._hooked = contextlib.ExitStack()  # captures that stay from batch to batch
        self._cuda_graph = cuda_graph
        self._graph: GraphedLoop | None = None
        self._graph_rows: int | None = None  # of each of its batches
        self._latest: tuple[Any, ...] = ()  # what the passes before were like

    def __enter__(self) -> Engine:
        """Put the hooks in place for all batches, unless a transform may run models itself."""
        devices = {device_of(r.model) for r in self.runs}
        if self._cuda_graph and [device.type for device in devices] != ["cuda"]:
            where = ", ".join(sorted(map(str, devices)))
            raise RuntimeError(f"cuda_graph: expected all models on one GPU, got {where}")
        if all(r.transform is None for r in self.runs):
            with contextlib.ExitStack() as hooked:
                for capture in self._captures:
                    hooked.enter_context(capture)
                self._hooked = hooked.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._hooked.close()
        # They know the engine, which knows the accumulator: memory that should not wait for the
        # collector of cycles.
        self._captures.clear()
        self._graph = None

    def is_too_small(self, batch: Batch) -> bool:
        """Whether the batch has too few samples for the measure."""
        return self._rows_per_sample_known and batch.n < self.accumulator.min_samples

    def step(self, batch: Batch, number: int) -> None:
        """Run every model on one batch. A batch that raises leaves no trace in the result."""
        self._expected = batch.n if self._rows_per_sample_known else None
        transformed: dict[int, Any] = {}
        kind = _kind(batch.x)
        if self._cuda_graph and kind == self._latest:
            self._replay(batch, number)
        else:
            self._graph = None  # of other shapes, and of memory that may have moved
            self._pass(batch, transformed, number)
        self._latest = kind
        start = perf_counter()
        try:
            self.accumulator.end_batch(self._expected or batch.n)
        except NotFiniteError as error:
            raise self._explained(error, batch, transformed, number) from error
        self.seconds["pairs"] += perf_counter() - start
        self.n_batches += 1

    def _pass(self, batch: Batch, transformed: dict[int, Any], number: int) -> None:
        """Forward passes of all models on a batch."""
        for r, capture in zip(self.runs, self._captures, strict=True):
            start = perf_counter()
            x = self._inputs(r, batch, transformed)
            middle = perf_counter()
            r.taken = 0
            r.running = True
            try:
                with contextlib.nullcontext() if capture.active else capture:
                    self._forward(r, x, number)
            finally:
                r.running = False
            self._check_run(r, number)
            self.seconds["inputs"] += middle - start
            self.seconds["forward"] += perf_counter() - middle

    def _replay(self, batch: Batch, number: int) -> None:
        """The same by a CUDA graph, captured if there is none."""
        start = perf_counter()
        inputs = _tensors(to_device(batch.x, device_of(self.runs[0].model)))
        if self._graph is None:

            def loop(held: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
                x = held[""] if isinstance(batch.x, Tensor) else {**batch.x, **held}
                self._pass(batch._replace(x=x), {}, number)
                return ()

            try:
                self._graph = GraphedLoop(loop, inputs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                raise RuntimeError(
                    "cuda_graph: the forward passes cannot be captured; models must not wait for "
                    f"the GPU, copy to the CPU or draw random numbers there: {error}"
                ) from error
            self._graph_rows = self._expected
            start = perf_counter()  # the capture has counted its own time
        self._graph(inputs)
        self._expected = self._graph_rows  # a replay runs no hooks
        self.seconds["forward"] += perf_counter() - start

    def _inputs(self, r: Run, batch: Batch, transformed: dict[int, Any]) -> Any:
        """Inputs of a run on its device; a transform that several runs share is called once."""
        device = device_of(r.model)
        if r.transform is None:
            return to_device(batch.x, device)
        key = id(r.transform)
        if key not in transformed:
            with torch.enable_grad():  # attacks need gradients
                # Copies: a transform may work in place, and others want the originals too.
                x, y = (to_device(part, device, copy=True) for part in (batch.x, batch.y))
                x = r.transform(x, y)
            if not isinstance(x, (Tensor, Mapping, tuple, list)):
                raise TypeError(
                    f"inputs: the transform of model {r.name!r} must return what the model takes, "
                    f"a tensor or a mapping or tuple of them, got {type(x).__name__}"
                )
            n = len(x) if isinstance(x, Tensor) and x.ndim else None
            if isinstance(x, Tensor) and n != batch.n:
                raise ValueError(
                    f"inputs: the transform of model {r.name!r} must keep the {batch.n} samples "
                    f"of a batch, got {n}"
                )
            transformed[key] = x.detach() if isinstance(x, Tensor) else x
        return to_device(transformed[key], device)

    def _forward(self, r: Run, x: Any, number: int) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if self._autocast is not None:
                kind = device_of(r.model).type
                stack.enter_context(torch.autocast(kind, dtype=self._autocast))
            try:
                run(r.model, x)
            except (RuntimeError, AssertionError) as error:
                if isinstance(error, torch.OutOfMemoryError):
                    raise
                raise RuntimeError(
                    f"model {r.name!r} failed in batch {number} on inputs {_outline(x)}"
                    f"{_weights(r.model)}: {error}"
                ) from error

    def _taker(
        self, r: Run, to_features: Callable[[Tensor], Tensor]
    ) -> Callable[[str, Tensor], None]:
        """The function that one run's hooks call with each activation."""
        accumulator, rows, check = self.accumulator, r.rows, not self._maps_are_ours
        latest: Callable[[], Tensor | None] = _no_tensor
        latest_version = latest_row = 0

        def take(name: str, activation: Tensor) -> None:
            nonlocal latest, latest_version, latest_row
            if not r.running:
                return
            row = rows.get(name)
            version = -1 if activation.is_inference() else activation._version
            if latest() is activation and version == latest_version and r.taken > 0:
                # The very tensor of the layer before, as a block returns what its last layer did.
                row = self._new_row(r, name) if row is None else row
                accumulator.repeat(row, latest_row)
            else:
                features = to_features(activation)
                if check and not (isinstance(features, Tensor) and features.is_floating_point()):
                    kind = getattr(features, "dtype", type(features).__name__)
                    raise TypeError(
                        f"maps must give floating-point tensors, got {kind} for layer {name!r} of "
                        f"model {r.name!r}"
                    )
                shape = features.shape
                if self._expected is None:
                    self._expected = shape[0]
                if shape[0] != self._expected or (check and len(shape) != 2):
                    self._refuse(r, name, features)
                    return
                row = self._new_row(r, name) if row is None else row
                accumulator.add(row, features)
            r.taken += 1
            if version >= 0:
                latest, latest_version, latest_row = ref(activation), version, row

        return take

    def _new_row(self, r: Run, name: str) -> int:
        if self.n_batches:
            raise ValueError(
                f"layer {name!r} of model {r.name!r} was not called in the first batch but is in "
                f"batch {self.n_batches}; every batch must run the same layers"
            )
        r.rows[name] = self._size
        self._size += 1
        return self._size - 1

    def _refuse(self, r: Run, name: str, features: Tensor) -> None:
        """Leave out a layer without one row a sample, or raise if the user asked for it."""
        if features.ndim != 2 and not self._maps_are_ours:
            raise ValueError(
                f"maps must give a matrix (n, p), got shape {tuple(features.shape)} for layer "
                f"{name!r} of model {r.name!r}"
            )
        if r.layers is None and self._rows_per_sample_known:
            r.skipped[name] = len(features)
            return
        hint = "" if self._rows_per_sample_known else " (choose such layers by layers=)"
        raise ValueError(
            f"layer {name!r} of model {r.name!r} gives {len(features)} rows where "
            f"{self._expected} are expected; all layers of all models must have the same samples"
            f"{hint}"
        )

    def _check_run(self, r: Run, number: int) -> None:
        if self.n_batches == 0:
            self._check_first_run(r)
        if r.taken != len(r.rows):
            raise ValueError(
                f"model {r.name!r} ran {r.taken} of its {len(r.rows)} layers in batch {number}; "
                "every batch must run the same layers"
            )

    def _check_first_run(self, r: Run) -> None:
        some = ", ".join(f"{name!r} ({rows})" for name, rows in list(r.skipped.items())[:5])
        some += ", ..." if len(r.skipped) > 5 else ""
        asked = [r.layers] if isinstance(r.layers, str) else r.layers
        by_name = asked if isinstance(asked, (list, tuple)) else ()
        modules = dict(r.model.named_modules()) if by_name else {}
        for name in by_name:
            label = name.removesuffix("#1")
            if label.partition("#")[0] in modules and label not in r.rows:
                raise ValueError(
                    f"layers: {name!r} of model {r.name!r} was never called, or returned no "
                    "floating-point tensor"
                )
        if not r.rows:
            raise ValueError(
                f"no layer of model {r.name!r} returned "
                + (
                    f"one row for each of the {self._expected} samples; rows were {some}"
                    if some
                    else "a floating-point tensor: none was called, or they return others"
                )
            )
        if r.skipped:
            warnings.warn(
                f"model {r.name!r}: {len(r.skipped)} layers left out because they do not return "
                f"one row for each of the {self._expected} samples: {some}",
                stacklevel=5,  # the caller of compare,
            )

    def _explained(
        self, error: NotFiniteError, batch: Batch, transformed: dict[int, Any], number: int
    ) -> ValueError:
        """Run the first model at fault once more and say what its first bad layer returned."""
        self._hooked.close()
        first = min(error.layers)
        r = next(r for r in self.runs if first in r.rows.values())
        name = next(name for name, row in r.rows.items() if row == first)
        found: list[str] = []

        def look(called: str, activation: Tensor) -> None:
            if called == name:
                found.append(_anomaly(activation))

        with Capture(r.model, r.layers, maps=None, on_activation=look):
            self._forward(r, self._inputs(r, batch, transformed), number)
        others = f"; {len(error.layers) - 1} later layers too" if len(error.layers) > 1 else ""
        return ValueError(
            f"layer {name!r} of model {r.name!r} in batch {number} (counted from 0): "
            f"{''.join(found)}{others}"
        )


def _tensors(x: Any) -> dict[str, Tensor]:
    """Tensors among a model's inputs, by name."""
    named = x if isinstance(x, Mapping) else {"": x}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def _kind(x: Any) -> tuple[Any, ...]:
    """What must be equal for two batches to be worked on alike; something unique if that is not
    known of an input."""

    def kind_of(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.shape, value.dtype, value.stride()
        return value if isinstance(value, (int, float, str, type(None))) else object()

    return tuple((n, kind_of(v)) for n, v in (x if isinstance(x, Mapping) else {"": x}).items())


def _no_tensor() -> None:
    """A weak reference to nothing."""


def _outline(x: Any) -> str:
    """Shapes and dtypes of a model's inputs."""
    if isinstance(x, Tensor):
        return f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}"
    if isinstance(x, Mapping):
        return "{" + ", ".join(f"{key}: {_outline(value)}" for key, value in x.items()) + "}"
    if isinstance(x, (tuple, list)):
        return f"({', '.join(map(_outline, x))})"
    return type(x).__name__


def _weights(model: nn.Module) -> str:
    """The dtype of a model's weights, for a message."""
    first = next(model.parameters(), None)
    return "" if first is None else f" with weights {str(first.dtype).removeprefix('torch.')}"


def _anomaly(activation: Tensor) -> str:
    nan = int(activation.isnan().sum())
    inf = int(activation.isinf().sum())
    if nan or inf:
        return f"activations have {nan} NaN and {inf} Inf among {activation.numel()} values"
    return (
        "activations are finite but too large for their Gram matrix, up to "
        f"{float(activation.abs().max()):.3g}"
    )
