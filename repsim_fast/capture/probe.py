"""A small batch in which a sample comes twice tells which layers' rows are samples, and how.

Rows may have the number of the samples by chance, as those that an expert is given, or the tokens
of time-first layers; or be the samples' windows or views in one order or another.
"""

from __future__ import annotations

import contextlib
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.nested import map_tensors, tensors_in
from repsim_fast.capture.capture import Capture, untouched
from repsim_fast.capture.permuted import look_at_orders
from repsim_fast.capture.samples import (
    EQUAL_SAMPLES_DIFFER,
    Place,
    Places,
    by_sample,
    find_place,
)

# Modules whose code is known to keep samples in rows, one each.
_KNOWN = ("torch.nn.", "torchvision.models.", "torchvision.ops.", "repsim_fast.models.")
_UNKNOWN = ("torchvision.models.detection.", "torchvision.models.optical_flow.")

# Layers that are most likely given a choice of rows, if these do not behave as samples.
_EXPERT = re.compile("expert", re.IGNORECASE)


def find_places(
    model: nn.Module,
    layers: Sequence[str],
    inputs: Any,
    n: int,
    forward: Callable[[Any], None],
    *,
    strict: bool,
) -> Places:
    """Where the layers of a model have their samples, from passes over a few samples of a batch.

    Nothing is run where the code of every module is known. Four samples, one of them twice, tell
    where samples are. Others in two orders tell whether rows move as they do; where they do not,
    or equal samples did not give equal rows, passes with one sample replaced tell why: because of
    random numbers, which are the same again, because samples interact, or because the rows are no
    samples. The model comes back as it was.

    Args:
        model: The model.
        layers: Names of the layers.
        inputs: What the model is called with: a tensor, or a tuple or mapping of inputs.
        n: Samples in it.
        forward: Runs the model on such inputs.
        strict: Leave layers out whose rows are not seen to be samples; else they are taken for
            samples where there is one for each, and the note says so.
    """
    if n < 2 or keeps_rows(model):
        return Places()
    if not any(x.ndim and len(x) == n for x in tensors_in(inputs)):
        return Places(note=_counted("nothing in a batch has a row for each sample"))
    picks = [0, n // 2, 0, n - 1]
    found: dict[str, tuple[Place | None, str]] = {}
    middle: dict[str, Tensor] = {}
    doubtful: list[str] = []
    counted: list[str] = []

    def look(name: str, x: Tensor) -> None:
        place, reason = found[name] = find_place(x, picks)
        if place in ("parts", "views"):
            middle[name] = by_sample(x, place, len(picks), None)[1].clone()
        elif reason == EQUAL_SAMPLES_DIFFER and not (strict and _EXPERT.search(name)):
            doubtful.append(name)

    def run_on(picks: Sequence[int], look: Callable[[str, Tensor], None]) -> None:
        capture = Capture(model, layers, maps=None, on_activation=look)
        with untouched(model), _attributes_kept(model), capture:
            forward(_rows(inputs, torch.tensor(picks), n))

    try:
        run_on(picks, look)
        places = {name: place or "first" for name, (place, _) in found.items()}
        seen = {name: places[name] for name in places if found[name][0] or name in doubtful}
        orders = look_at_orders(run_on, inputs, n, seen, doubtful)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        why = str(error.__cause__ or error).partition("\n")[0]
        return Places(note=_counted(f"the model does not run on four samples of a batch: {why}"))
    for name in seen:
        if (name not in doubtful and name not in orders.moved) or name in orders.alone:
            found[name] = seen[name], ""
        elif seen[name] == "first" and (
            not strict or name in orders.with_others or name not in orders.moved
        ):
            found[name] = "first", ""
            counted.append(name)
        else:
            found[name] = None, found[name][1] or orders.moved[name]
            middle.pop(name, None)
    return Places(
        {name: place for name, (place, _) in found.items() if place is not None},
        {name: reason for name, (place, reason) in found.items() if place is None},
        middle,
        _counted(f"{EQUAL_SAMPLES_DIFFER} of {_some(counted)}") if counted else "",
    )


def _some(layers: Sequence[str]) -> str:
    some = ", ".join(map(repr, layers[:5])) + ", ..." * (len(layers) > 5)
    return f"{len(layers)} layers: {some}"


def _counted(why: str) -> str:
    return f"rows are only counted, not seen to be samples, because {why}"


def keeps_rows(model: nn.Module) -> bool:
    """Whether the code of every module is known, and gives one row for each sample."""
    return all(_keeps_rows(module) for module in model.modules())


def _keeps_rows(module: nn.Module) -> bool:
    classes = type(module).__mro__
    if "forward" in vars(module) or not all(map(_is_known, classes[: classes.index(nn.Module)])):
        return False
    if isinstance(module, (nn.Flatten, nn.Unflatten)):
        dim = module.start_dim if isinstance(module, nn.Flatten) else module.dim
        return isinstance(dim, int) and dim > 0
    if isinstance(module, (nn.MultiheadAttention, nn.RNNBase)):
        return bool(module.batch_first)
    return not isinstance(module, nn.AdaptiveLogSoftmaxWithLoss)  # gives rows to its tails


def _is_known(cls: type) -> bool:
    """Whether a class comes with one of the libraries, or adds no more than a constructor."""
    where = cls.__module__ + "."
    if where.startswith(_KNOWN):
        return not where.startswith(_UNKNOWN)
    return not any(
        callable(v) or isinstance(v, property) for k, v in vars(cls).items() if k != "__init__"
    )


def _rows(inputs: Any, rows: Tensor, n: int) -> Any:
    """The same inputs for some of the n samples."""

    def some(x: Tensor) -> Tensor:
        return x[rows.to(x.device)] if x.ndim and len(x) == n else x

    return map_tensors(some, inputs)


@contextlib.contextmanager
def _attributes_kept(model: nn.Module) -> Iterator[None]:
    """Attributes of modules, such as counters and caches, as before afterwards, and no new hooks.

    A model may put its hooks in by itself in its first pass and note in an attribute that they are
    there, as those of transformers that collect hidden states.
    """
    kept = [_Attributes(module) for module in model.modules()]
    try:
        yield
    finally:
        for one in kept:
            one.put_back()


class _Attributes:
    """What a module has beside parameters, buffers and modules inside, which may be made in its
    first pass."""

    def __init__(self, module: nn.Module) -> None:
        self._own, self._before = vars(module), dict(vars(module))
        self._collections = [
            (value, value.copy())
            for name, value in self._before.items()
            if type(value) in (list, dict, OrderedDict, set) and name not in _STANDARD
        ]
        self._hooks = [(v, set(v)) for name, v in self._before.items() if name in _HOOKS]

    def put_back(self) -> None:
        for name in self._own.keys() - self._before.keys():
            del self._own[name]
        self._own.update(self._before)
        for value, content in self._collections:
            value.clear()
            value.extend(content) if type(value) is list else value.update(content)
        for hooks, numbers in self._hooks:  # those that were taken away stay away
            for number in hooks.keys() - numbers:
                del hooks[number]


_STANDARD = frozenset(vars(nn.Module()))
_HOOKS = frozenset(name for name in _STANDARD if "_hooks" in name)
