"""Clean and robust accuracy."""

from __future__ import annotations

import contextlib
import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from repsim_fast._core.batch_checks import check_labels_below
from repsim_fast._core.borrow import Model, borrow, call
from repsim_fast._core.memory_format import fastest_layout, is_ours, laid_out
from repsim_fast._core.model_state import device_of
from repsim_fast._core.processes import Processes
from repsim_fast.attacks.best_adversarial import fools
from repsim_fast.data.labelled import labelled
from repsim_fast.data.labels import classes_of
from repsim_fast.data.samples import Samples

Attack = Callable[[Any, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Accuracy:
    """Accuracies in [0, 1] over ``n`` images; ``robust`` is None without an attack."""

    clean: float
    robust: float | None
    n: int

    def interval(self, *, robust: bool = False, z: float = 1.96) -> tuple[float, float]:
        """Wilson score interval of an accuracy; z = 1.96 for 95 %."""
        p = self.robust if robust else self.clean
        if p is None:
            raise ValueError("there is no robust accuracy: evaluate was given no attack")
        n, z2 = self.n, z * z
        centre, scale = p + z2 / (2 * n), 1 + z2 / n
        half = z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        # Rounding can take a bound just outside where the accuracy is 0 or 1.
        return max(0.0, (centre - half) / scale), min(1.0, (centre + half) / scale)


def evaluate(
    model: Model,
    data: Any,
    attack: Attack | None = None,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    progress: bool = False,
    on_batch: Callable[[Tensor, Tensor], None] | None = None,
) -> Accuracy:
    """Accuracy of ``model``, in eval mode, on clean images and on those of an attack.

    Robust accuracy counts the images that are classified correctly clean *and* attacked; an
    output with a NaN is never correct. The model comes back as it was.

    Args:
        model: Maps images in [0, 1] to logits.
        data: ``repsim_fast.data.ImageData``, a pair of tensors (images, labels), or a
            ``DataLoader`` or other iterable of such pairs with a length. Of soft labels
            (N, n_classes) the most probable class counts.
        attack: Callable (model, x, y) -> x_adv; None for clean accuracy only.
        batch_size: Images at a time, where ``data`` does not come in batches.
        device: Where the batches go; default: where the model is.
        progress: Show a progress bar.
        on_batch: Called with each batch's adversarial images and with which of them, the clean
            image included, the model gets right, (N,) bool.

    Raises:
        ValueError: Labels that are no class of the model, or what the attack raises.
    """
    held = labelled(data)
    where = _place(model) if device is None else torch.device(device)
    n = clean = robust = 0
    layout: torch.memory_format | None = None
    total = len(held.labels) if isinstance(held, Samples) else None
    with held.reading(where), _bar(total, progress) as bar, contextlib.ExitStack() as stack:
        for x, labels in held.batches(batch_size, where):
            if layout is None:
                layout = stack.enter_context(_laid_out(model, attack, x))
            x, y = laid_out(x, layout), classes_of(labels)
            right = correct(model, x, y)
            clean += int(right.sum())
            if attack is not None:
                adversarial = attack(model, x, y)
                right &= correct(model, adversarial, y)
                robust += int(right.sum())
                if on_batch is not None:
                    on_batch(adversarial.contiguous(), right)
            n += len(y)
            bar.update(len(y))
    return Accuracy(clean / n, None if attack is None else robust / n, n)


def _laid_out(
    model: Model, attack: Attack | None, x: Tensor
) -> contextlib.AbstractContextManager[torch.memory_format]:
    # Attacks of others may not take gradients of other strides than the images'.
    if attack is None or is_ours(attack):
        return fastest_layout(model, x[:1])
    return contextlib.nullcontext(torch.preserve_format)


def correct(model: Model, x: Tensor, y: Tensor) -> Tensor:
    """Which images are classified correctly in eval mode, (N,) bool; a NaN output never is."""
    with borrow(model, device=x.device, seed=0), torch.no_grad():
        logits = call(model, x)
        check_labels_below(logits.shape[1], y)
        return ~fools(logits, y)


def _place(model: Model) -> torch.device:
    return device_of(model) if isinstance(model, nn.Module) else torch.device("cpu")


def evaluate_shared(
    model: nn.Module, data: Any, attack: Attack | None, device: torch.device, group: Processes
) -> Accuracy:
    """Accuracies over all processes, each on its share of the data."""
    mine = labelled(data, "evaluation data").share(group)
    scores = evaluate(model, mine, copy.deepcopy(attack), device=device)
    counts = torch.tensor(
        [scores.clean * scores.n, (scores.robust or 0.0) * scores.n, scores.n],
        dtype=torch.float64,
        device=device,
    )
    clean, robust, n = group.sum(counts).tolist()
    return Accuracy(clean / n, None if scores.robust is None else robust / n, int(n))


def _bar(total: int | None, shown: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(total=total, desc="evaluate", unit="img", disable=not shown, leave=False)
