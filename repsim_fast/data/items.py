"""One item of a stream of data, of any structure, as a batch of inputs and labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from repsim_fast._core.checks import as_tensor
from repsim_fast._core.inputs import LABEL_NAMES
from repsim_fast._core.nested import tensors_in


class PerModel(dict[str, Any]):
    """Inputs of one batch for each model by its name, where these differ."""


class Batch(NamedTuple):
    """Inputs of n samples and their labels.

    ``x`` is a tensor (n, ...), a mapping, or a tuple of arguments; or ``PerModel`` with one of
    them a model. ``y`` is a tensor (n,) where labels are numbers, anything where they are not, and
    None without any. Labels that a mapping has stay in it, where its model may want them. ``item``
    is what the data gave, arrays as tensors, for a user's own ``forward``.
    """

    x: Any
    y: Any
    n: int
    item: Any = None


def with_tensors(item: Any) -> Any:
    """The same with NumPy's arrays and numbers as tensors, in any nesting."""
    if isinstance(item, (np.ndarray, np.number, np.bool_)):
        return as_tensor(np.asanyarray(item))
    if isinstance(item, Mapping):
        return {key: with_tensors(value) for key, value in item.items()}
    if type(item) in (tuple, list):
        return type(item)(map(with_tensors, item))
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        return type(item)(*map(with_tensors, item))
    return item


def as_batch(item: Any, number: int, *, raw: bool = False) -> Batch:
    """Inputs and labels of an item.

    Args:
        item: x, (x, y), (x, y, what else there is of each sample), or a mapping of a model's
            arguments, with or without labels. x is a tensor (n, ...), a mapping, or a list of
            images.
        number: Of the batch, for messages.
        raw: Anything goes: a ``forward`` of the user's takes the item as it is.

    Raises:
        TypeError: No tensors where inputs are looked for.
        ValueError: A single sample, or a second part that would be ignored and is no label.
    """
    item = with_tensors(item)
    if raw:
        return Batch(item, _labels_of(item), _count(item, number), item)
    if isinstance(item, Mapping):
        if any(_is_single(item.get(name)) for name in LABEL_NAMES):
            raise _single_sample(number)
        return Batch(item, _labels_within(item), _count(item, number), item)
    if (images := _images(item)) is not None:
        return Batch(*images, item)
    parts = item if isinstance(item, (tuple, list)) else (item,)
    if not parts:
        raise TypeError(f"data: batch {number} is empty; it must be x or (x, y)")
    x, y = parts[0], _numbers(parts[1]) if len(parts) > 1 else None
    if _is_single(y) and (isinstance(x, Tensor) or not isinstance(y, str)):
        raise _single_sample(number)
    images = _images(x)
    if images is None and not isinstance(x, (Tensor, Mapping)):
        raise _not_understood(item, number)
    n = _count(x, number) if images is None else images[2]
    if images is not None:
        x = images[0]
    if y is None and isinstance(x, Mapping):
        y = _labels_within(x)
    _check_second(x, y, number)
    for part in parts[2:]:
        # Of one shape with the first they may all be samples, or all inputs.
        _check_rest(part, n, number, alike=isinstance(x, Tensor) and x.ndim < 2)
    return Batch(x, y, n, item)


def _is_single(y: Any) -> bool:
    """Whether a label is that of one sample."""
    return isinstance(y, (int, str)) or (isinstance(y, Tensor) and y.ndim == 0)


def _single_sample(number: int) -> ValueError:
    return ValueError(
        f"data: item {number} is a single sample with its label, and batches are wanted; wrap "
        "the data in torch.utils.data.DataLoader(data, batch_size=...)"
    )


FORWARD = "forward=lambda model, batch: ... says what a model is to be run on"


def _images(item: Any) -> tuple[Any, None, int] | None:
    """A list of images (C, H, W), as inputs: one tensor, or the list where sizes differ."""
    if not isinstance(item, (tuple, list)) or len(item) < 2:
        return None
    if not all(isinstance(x, Tensor) and x.ndim == 3 and len(x) in (1, 3, 4) for x in item):
        return None
    if len({x.shape for x in item}) == 1:
        return torch.stack(list(item)), None, len(item)
    return ([*item],), None, len(item)


def _labels_of(item: Any) -> Any:
    if isinstance(item, Mapping):
        return _labels_within(item)
    return _numbers(item[1]) if isinstance(item, (tuple, list)) and len(item) > 1 else None


def _labels_within(x: Mapping[str, Any]) -> Any:
    """One label for each sample, where a mapping has them under a usual name."""
    found = (_numbers(x.get(name)) for name in LABEL_NAMES)
    return next((y for y in found if isinstance(y, Tensor) and y.ndim == 1), None)


def _numbers(y: Any) -> Any:
    """A list of numbers as a tensor; anything else as it is."""
    if isinstance(y, Sequence) and y and all(type(one) in (int, float, bool) for one in y):
        return torch.tensor(y)
    return y


def _count(x: Any, number: int) -> int:
    """Samples of inputs: of a graph batch its graphs, otherwise the length of the first tensor."""
    for name in ("num_graphs", "batch_size"):
        if isinstance(found := getattr(x, name, None), int) and not isinstance(x, Tensor):
            return found
    first = next(tensors_in(x), None)
    if first is None:
        raise _not_understood(x, number)
    if first.ndim == 0:
        raise ValueError(f"data: batch {number} must hold samples (n, ...), got a single number")
    if isinstance(x, (tuple, list)) and _images(x[0] if x else None) is not None:
        return len(x[0])
    return len(x) if _images(x) is not None else len(first)


def _check_second(x: Any, y: Any, number: int) -> None:
    leading = next(tensors_in(x), None)
    if not isinstance(y, Tensor) or leading is None:
        return
    if y.shape == leading.shape and y.ndim > 1:
        raise ValueError(
            f"data: the second part of batch {number} has the shape of the first, "
            f"{tuple(y.shape)}: labels are wanted, got a second stream of inputs or a mask, "
            "which would be ignored. Inputs that differ between models go into a mapping, "
            'data={"model a": ..., "model b": ...}; several inputs of one model into a dict '
            'by the names of its arguments, {"input_ids": ids, "attention_mask": mask}, in each '
            f"batch; or {FORWARD}"
        )


def _check_rest(part: Any, n: int, number: int, *, alike: bool) -> None:
    """What comes after labels, and is not looked at, must be about samples: numbers or names."""
    if isinstance(part, Tensor) and (part.ndim != 1 or len(part) != n or alike):
        raise TypeError(
            f"data: batch {number} must be x, (x, y) or (x, y, numbers of the samples), got a "
            f"further part {tuple(part.shape)}, which would be ignored; several inputs go into a "
            f"dict by the names of the model's arguments, or {FORWARD}"
        )


def _not_understood(item: Any, number: int) -> TypeError:
    return TypeError(
        f"data: batch {number} must be x or (x, y), tensors or x a mapping of tensors, got "
        f"{_outline(item)}; {FORWARD}"
    )


def _outline(item: Any) -> str:
    if isinstance(item, (tuple, list)):
        some = [type(part).__name__ for part in item[:5]] + ["..."] * (len(item) > 5)
        return f"{type(item).__name__}({', '.join(some)})"
    return type(item).__name__
