"""Memory formats in which the models of a comparison run: channels last where that is faster."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from repsim_fast._core.borrow import borrow, model_dtype
from repsim_fast._core.memory_format import Look, fastest_layout, laid_out
from repsim_fast._core.nested import map_tensors, tensors_in
from repsim_fast.capture import Capture
from repsim_fast.capture import run as run_model
from repsim_fast.comparison.inputs import BatchInputs
from repsim_fast.comparison.plan import Run

# A model is run four times on one image to find out; below so many images, or so many of their
# pixels, that takes longer than channels last save (benchmarks/layouts.py: up to 2^16 or 2^17).
FEWEST_IMAGES, FEWEST_PIXELS = 64, 1 << 17

# Many weights on small maps: with AVX-512 channels last gain nothing in float32 (ResNet-18 to 50,
# VGG-16 and PreActResNet-18 with images 32 or 64 wide: 0.91 to 1.22 of the time of a forward pass;
# larger images 0.80 to 0.87, networks of fewer weights 0.64 to 0.92 but for one of 0.1 million).
# In 16 bits they gain (0.65 to 0.84), but only after so many pixels as moving the weights takes. Of
# a Xeon with AMX, two threads, looked at once and not recorded.
MANY_WEIGHTS, SMALL_PIXELS, FEWEST_PIXELS_OF_SMALL = 1 << 23, 64 * 64, 1 << 20


def _convolution_weights(model: nn.Module) -> int:
    weights = [m._parameters.get("weight") for m in model.modules() if isinstance(m, nn.Conv2d)]
    return sum(weight.numel() for weight in weights if weight is not None and not is_lazy(weight))


class Layouts(contextlib.ExitStack):
    """Models in their memory formats, until it is closed.

    Models stay as they are where something else than their own code sees them: a transform of
    inputs, which may attack them, a ``forward`` of the caller, or another model of the comparison
    with which they share weights. Before a model gets channels last, all layers that are compared
    must return the same with them, up to rounding, of an image of the first batch.

    Args:
        runs: All of the comparison.
        calls: Which calls of a layer count, as in ``Capture``.
        autocast: Dtype of automatic mixed precision, or None for none.
        n_batches: Batches that will come; None where that is not known, which counts as one.
        batch_size: Samples in a batch; None: as many as the first one has.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        *,
        calls: Literal["all", "first"],
        autocast: torch.dtype | None,
        n_batches: int | None,
        batch_size: int | None = None,
    ) -> None:
        super().__init__()
        self._runs = runs
        self._calls = calls
        self._half = autocast is not None
        self._n_batches = n_batches
        self._batch_size = batch_size
        self._formats: dict[nn.Module, torch.memory_format] = {}
        self._kept: dict[nn.Module, contextlib.ExitStack] = {}  # in their formats

    def settle(self, inputs: BatchInputs) -> None:
        """Choose formats, with the first batch. No hooks of a comparison must be there yet."""
        if any(run.transform is not None for run in self._runs):
            return
        models = dict.fromkeys(run.model for run in self._runs)
        owners = Counter(id(weight) for model in models for weight in model.parameters())
        for model in models:
            runs = [run for run in self._runs if run.model is model]
            if any(run.forward is not None for run in runs) or any(
                owners[id(weight)] > 1 for weight in model.parameters()
            ):
                continue
            x = inputs.of(runs[0])
            tensors = list(tensors_in(x))
            half = self._half or model_dtype(model, torch.float32).itemsize == 2
            if len(tensors) == 1 and self._pays(model, tensors[0], half):
                kept = self._kept[model] = self.enter_context(contextlib.ExitStack())
                self._formats[model] = kept.enter_context(
                    fastest_layout(model, tensors[0], half=half, look=self._look(runs, x))
                )

    def _pays(self, model: nn.Module, images: Tensor, half: bool) -> bool:
        """Whether these are images, of which enough will come for such a model."""
        if images.ndim != 4 or not images.is_floating_point():
            return False
        # The same in every process: none looks at its own share.
        count = (self._batch_size or len(images)) * (self._n_batches or 1)
        size = images[0, 0].numel()
        if count < FEWEST_IMAGES or count * size < FEWEST_PIXELS:
            return False
        if (
            not images.is_cpu
            or torch.backends.cpu.get_cpu_capability() != "AVX512"
            or size > SMALL_PIXELS
            or _convolution_weights(model) < MANY_WEIGHTS
        ):
            return True
        return half and count * size >= FEWEST_PIXELS_OF_SMALL

    def give_up(self, run: Run) -> bool:
        """Put the model of a run back into its own format; whether it had another one."""
        if self._formats.get(run.model, torch.preserve_format) == torch.preserve_format:
            return False
        self._formats[run.model] = torch.preserve_format
        self._kept[run.model].close()
        return True

    def laid_out(self, run: Run, x: Any) -> Any:
        """Inputs of a run in the format of its model."""
        layout = self._formats.get(run.model, torch.preserve_format)
        if layout == torch.preserve_format:
            return x
        return map_tensors(lambda images: laid_out(images, layout), x)

    def _look(self, runs: Sequence[Run], inputs: Any) -> Look:
        """All that the comparison reads of a model, which takes its images as in some inputs."""

        def look(images: Tensor) -> list[Tensor]:
            found: list[Tensor] = []
            for run in runs:
                layers = run.hooked if run.layers is None else run.layers
                capture = Capture(run.model, layers, maps=None, calls=self._calls)
                kept = borrow(run.model, mode="keep", device=images.device, seed=0)
                with kept, torch.no_grad(), capture:
                    run_model(run.model, map_tensors(lambda _: images, inputs))
                found += capture.activations.values()
            return found

        return look
