"""Labels: one class an image, (N,) integers, or soft, (N, n_classes) probabilities."""

from __future__ import annotations

import torch
from torch import Tensor

from repsim_fast._core.batch_checks import check_labels_below
from repsim_fast._core.nested import moved

# Rows may come from a softmax in 16 bits, or from a file of a few digits.
_SUM_TOLERANCE = 1e-2


def classes_of(labels: Tensor) -> Tensor:
    """The class of each image, (N,); of soft labels the most probable one."""
    return labels if labels.ndim == 1 else labels.argmax(1)


def check_labels(name: str, labels: Tensor, n: int) -> None:
    """One label for each of ``n`` images: integers, or probabilities that sum to 1.

    Raises:
        TypeError: Another dtype.
        ValueError: Another shape, or rows that are no probabilities.
    """
    soft = labels.is_floating_point() and labels.ndim == 2
    if not soft and (labels.is_floating_point() or labels.dtype == torch.bool):
        raise TypeError(
            f"{name}: labels must be integers, got {labels.dtype} of shape {tuple(labels.shape)} "
            "(soft labels are probabilities, (N, n_classes))"
        )
    if n == 0 or labels.shape[:1] != (n,) or labels.ndim != (2 if soft else 1):
        raise ValueError(
            f"{name} must hold at least one image and one label for each, got {n} images and "
            f"{tuple(labels.shape)} labels"
        )
    if soft:
        sums = labels.float().sum(1)
        if not bool(((labels >= 0).all(1) & ((sums - 1).abs() < _SUM_TOLERANCE)).all()):
            raise ValueError(
                f"{name}: soft labels must be probabilities that sum to 1, got values in "
                f"[{labels.min():.3g}, {labels.max():.3g}] with sums in "
                f"[{sums.min():.3g}, {sums.max():.3g}]"
            )


def check_fit(name: str, labels: Tensor, n_classes: int) -> None:
    """Labels that are classes, or probabilities of the classes, of a model.

    Raises:
        ValueError: They are not.
    """
    if labels.ndim == 1:
        check_labels_below(n_classes, labels)
    elif labels.shape[1] != n_classes:
        raise ValueError(
            f"{name}: soft labels must have the model's {n_classes} classes, got {labels.shape[1]}"
        )


def alike(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    """Labels of two streams in one form: beside soft ones, classes are probabilities 0 and 1."""
    if one.ndim == other.ndim:
        return one, other
    soft = other if one.ndim == 1 else one
    classes = one if one.ndim == 1 else other
    sure = torch.nn.functional.one_hot(classes, soft.shape[1]).to(soft.dtype)
    return (sure, other) if one.ndim == 1 else (one, sure)


def placed_labels(labels: Tensor, device: torch.device) -> Tensor:
    """On ``device``: classes in int64, probabilities in float32 or float64."""
    if labels.ndim == 1:
        return moved(labels, device, torch.int64)
    wide = torch.promote_types(labels.dtype, torch.float32)
    return moved(labels, device, wide)
