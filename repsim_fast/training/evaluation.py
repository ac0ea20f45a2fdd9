"""Clean and robust accuracy."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from repsim_fast._core.attacked import Attack, attacked
from repsim_fast._core.borrow import Model, borrow, call
from repsim_fast._core.kept_memory import kept_memory
from repsim_fast._core.memory_format import fastest_layout, is_ours, laid_out
from repsim_fast._core.model_state import check_has_values, device_of, usable_device
from repsim_fast._core.processes import Processes
from repsim_fast.analysis.estimates import wilson_interval
from repsim_fast.attacks.best_adversarial import fools
from repsim_fast.data.labelled import labelled
from repsim_fast.data.labels import check_fit, classes_of
from repsim_fast.data.samples import Samples

from .faster_form import Form, Forms, in_form


@dataclass(frozen=True)
class Accuracy:
    """Accuracies in [0, 1] over ``n`` images; ``robust`` is None without an attack.

    ``under`` has the robust accuracy of each of several attacks by its name; ``robust`` is then
    that of the first.
    """

    clean: float
    robust: float | None
    n: int
    under: Mapping[str, float] = field(default_factory=dict)

    def interval(self, *, robust: bool = False, z: float = 1.96) -> tuple[float, float]:
        """Wilson score interval of an accuracy; z = 1.96 for 95 %."""
        p = self.robust if robust else self.clean
        if p is None:
            raise ValueError("there is no robust accuracy: evaluate was given no attack")
        return wilson_interval(p, self.n, z)


def evaluate(
    model: Model,
    data: Any,
    attack: Attack | Mapping[str, Attack] | None = None,
    *,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    progress: bool = False,
    on_batch: Callable[[Tensor, Tensor], None] | None = None,
) -> Accuracy:
    """Accuracy of ``model``, in eval mode, on clean images and on those of an attack.

    Robust accuracy counts the images that are classified correctly clean *and* attacked; an
    output with a NaN is never correct. The model comes back as it was; layout of weights, norms,
    ReLUs and memory are meanwhile as in ``train``.

    Args:
        model: Maps images in [0, 1] to logits.
        data: ``repsim_fast.data.ImageData``, a pair of tensors (images, labels), or a
            ``DataLoader`` or other iterable of such pairs with a length. Of soft labels
            (N, n_classes) the most probable class counts.
        attack: Callable (model, x, y) -> x_adv, or several by name, whose accuracies are each
            its own; None for clean accuracy only.
        batch_size: Images at a time, where ``data`` does not come in batches.
        device: Where the batches go; default: where the model is.
        progress: Show a progress bar.
        on_batch: Called with each batch's adversarial images and with which of them, the clean
            image included, the model gets right, (N,) bool; of one attack.

    Raises:
        ValueError: No images, float ones in 0 to 255, labels that are no class of the model, no
            attack in a mapping, ``on_batch`` beside several, what an attack raises, or one that
            gives no image for each of its images.
        TypeError: An attack that gives something else than a floating-point tensor, a batch size
            that is not whole.
        RuntimeError: The device does not exist.
    """
    return _evaluate(model, data, attack, Forms(), batch_size, device, progress, on_batch)


@torch.inference_mode(False)  # in which attacks could not take gradients
def _evaluate(
    model: Model,
    data: Any,
    attack: Attack | Mapping[str, Attack] | None,
    forms: Forms,
    batch_size: int = 256,
    device: torch.device | str | None = None,
    progress: bool = False,
    on_batch: Callable[[Tensor, Tensor], None] | None = None,
) -> Accuracy:
    if isinstance(model, nn.Module):
        check_has_values(model)  # before it is run for its faster form
    held = labelled(data)
    where = _place(model) if device is None else usable_device(device)
    attacks = attacks_by_name(attack)
    if on_batch is not None and len(attacks) > 1:
        raise ValueError(f"on_batch wants the images of one attack, got {sorted(attacks)}")
    n = clean = 0
    robust = dict.fromkeys(attacks, 0)
    layout: torch.memory_format | None = None
    total = len(held.labels) if isinstance(held, Samples) else None
    with (
        kept_memory(where),
        held.reading(where),
        _bar(total, progress) as bar,
        contextlib.ExitStack() as stack,
    ):
        for x, labels in held.batches(batch_size, where):
            if layout is None:
                layout = stack.enter_context(_fastest_form(model, attacks.values(), x, forms))
            x, y = laid_out(x, layout), classes_of(labels)
            right = correct(model, x, labels)
            clean += int(right.sum())
            for name, one in attacks.items():
                whose = f"attack {name!r}" if name else "attack"
                adversarial = attacked(whose, one, model, x, y)
                held_out = right & correct(model, adversarial, y)
                robust[name] += int(held_out.sum())
                if on_batch is not None:
                    on_batch(adversarial.contiguous(), held_out)
            n += len(y)
            bar.update(len(y))
    if n == 0:
        raise ValueError("data must hold at least one image, got none")
    return _accuracy(clean, robust, n)


def attacks_by_name(attack: Attack | Mapping[str, Attack] | None) -> Mapping[str, Attack]:
    """Attacks by name; one alone has the empty name.

    Raises:
        ValueError: An empty mapping.
        TypeError: Something that is no attack.
    """
    if isinstance(attack, Mapping):
        if not attack:
            raise ValueError("attack: expected an attack at least, got an empty mapping")
        found = attack
    else:
        found = {} if attack is None else {"": attack}
    for one in found.values():
        if not callable(one) or isinstance(one, type):
            raise TypeError(
                "attack must be callable as (model, x, y) -> x_adv, such as attacks.PGD(8 / 255), "
                f"got {one!r}"
            )
    return found


def _accuracy(clean: float, robust: Mapping[str, float], n: int) -> Accuracy:
    shares = {name: count / n for name, count in robust.items()}
    first = next(iter(shares.values()), None)
    return Accuracy(clean / n, first, n, {name: held for name, held in shares.items() if name})


@contextlib.contextmanager
def _fastest_form(
    model: Model, attacks: Collection[Attack], images: Tensor, forms: Forms
) -> Iterator[torch.memory_format]:
    # Attacks of others may not take gradients of other strides than the images'.
    if not all(map(is_ours, attacks)):
        yield torch.preserve_format
        return
    with fastest_layout(model, images) as layout:
        # To find out costs more than forward passes alone gain.
        form = forms.of(model, laid_out(images, layout), layout) if attacks else Form([], [])
        with in_form(form):
            yield layout


def correct(model: Model, x: Tensor, labels: Tensor) -> Tensor:
    """Which images are classified correctly in eval mode, (N,) bool; a NaN output never is."""
    with borrow(model, device=x.device, seed=0), torch.no_grad():
        logits = call(model, x)
        check_fit("data", labels, logits.shape[1])
        return ~fools(logits, classes_of(labels))


def _place(model: Model) -> torch.device:
    return device_of(model) if isinstance(model, nn.Module) else torch.device("cpu")


def evaluate_shared(
    model: nn.Module,
    data: Any,
    attack: Attack | Mapping[str, Attack] | None,
    device: torch.device,
    group: Processes,
    forms: Forms,
) -> Accuracy:
    """Accuracies over all processes, each on its share of the data."""
    mine = labelled(data, "evaluation data").share(group)
    scores = _evaluate(model, mine, copy.deepcopy(attack), forms, device=device)
    names = attacks_by_name(attack)
    held = [scores.under.get(name, scores.robust or 0.0) for name in names]
    shares = torch.tensor([scores.clean, *held, 1.0], dtype=torch.float64, device=device)
    clean, *robust, n = group.sum(shares * scores.n).tolist()
    return _accuracy(clean, dict(zip(names, robust, strict=True)), round(n))


def _bar(total: int | None, shown: bool) -> Any:
    return tqdm(total=total, desc="evaluate", unit="img", disable=not shown, leave=False)
