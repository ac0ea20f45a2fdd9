"""What of a model may run faster for a while, with the same answers but for rounding."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from repsim_fast._core.borrow import Model
from repsim_fast._core.in_place import Rectifier, in_place, overwritable, same_answers
from repsim_fast._core.model_state import in_mode, structure
from repsim_fast._core.paths import same_path

from .fused_norms import Pair, fused, fusible, rectifying


class Form(NamedTuple):
    """Norms to be fused with the ReLU after them, and ReLUs to overwrite their input."""

    pairs: list[Pair]
    rectifiers: list[Rectifier]


def faster_form(model: Model, images: Tensor, layout: torch.memory_format) -> Form:
    """The model's faster form, found by running it on two images, without a trace; on N, too, where
    it runs other operations on them.

    Args:
        model: In the layout and the autocast state that it will run in; what is no module has none.
        images: As many as will come, (N, ...), the first one in that layout.
        layout: Of the images to come.
    """
    # Norms are fused with a rectifier, and nothing but rectifiers overwrites.
    if not (
        isinstance(model, nn.Module) and any(isinstance(m, Rectifier) for m in model.modules())
    ):
        return Form([], [])
    if same_path(model, images):
        images = images[:2]
    pairs: list[Pair] = []
    device = images.device.type
    # The operator takes no float16; ReLUs in place are the faster form then.
    half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) == torch.float16
    if layout == torch.channels_last and not half:
        pairs = fusible(model, images)
    with fused(pairs):
        return Form(pairs, overwritable(model, images))


class Forms:
    """Faster forms that were found, for as long as a model stays what it was.

    Each epoch of a training and each of its evaluations asks: a form is looked for once, where
    finding out takes small networks as long as an epoch of few images, and then tried on two.
    """

    def __init__(self) -> None:
        self._structure: tuple[Any, ...] = ()
        self._found: dict[tuple[Any, ...], Form] = {}

    def of(self, model: Model, images: Tensor, layout: torch.memory_format) -> Form:
        """As ``faster_form``."""
        if not isinstance(model, nn.Module):
            return faster_form(model, images, layout)
        with in_mode([model], "eval"):  # a form holds in either mode
            now = structure(model)
        if now != self._structure:
            self._structure, self._found = now, {}
        device = images.device.type
        half = torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device)
        key = (layout, half, images.shape, images.dtype, images.device)
        if key not in self._found or not _holds(self._found[key], model, images[:1]):
            self._found[key] = faster_form(model, images, layout)
        return self._found[key]


def _holds(form: Form, model: nn.Module, image: Tensor) -> bool:
    """Whether a form still gives the model's answers, which may depend on more than its structure
    shows."""

    @contextlib.contextmanager
    def formed() -> Iterator[None]:
        with rectifying(form.pairs), in_place(form.rectifiers):
            yield

    return not any(form) or same_answers(model, image, formed)


@contextlib.contextmanager
def in_form(form: Form) -> Iterator[None]:
    """Within, the model runs in this form."""
    with fused(form.pairs), in_place(form.rectifiers):
        yield
