"""Layer grid of ResNet-18 against ResNet-34: the whole comparison over the bare forward passes.

512 images 3x32x32, batches of 128, 50 x 90 layers (every convolution, batch norm, linear layer and
the first call of every ReLU), torchvision's definitions, batch-norm statistics calibrated. The
forwards are timed in a process of their own, as a script without this library has them, and beside
that in the process that compares.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import peers
import pytest
import torch
from own_process import in_own_process
from timing import side_by_side, tolerance
from torch import nn

from repsim_fast import compare
from repsim_fast.ops.centering import center_gram

torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")

BATCH, IMAGES = 128, 512
LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear)


def is_counted(name: str, module: nn.Module) -> bool:
    return isinstance(module, LAYERS)


def networks(images: torch.Tensor) -> list[nn.Module]:
    models = [torchvision.models.resnet18(), torchvision.models.resnet34()]
    for model in models:
        model.train()
        with torch.no_grad():
            for _ in range(3):
                model(images)
        model.eval()
    return models


def forwards(models: list[nn.Module], images: torch.Tensor) -> None:
    with torch.inference_mode():
        for batch in images.split(BATCH):
            for model in models:
                model(batch)


def alone() -> Callable[[], None]:
    """The forwards, for a process of their own."""
    images = torch.rand(IMAGES, 3, 32, 32)
    return functools.partial(forwards, networks(images), images)


def float64_grid(models: list[nn.Module], images: torch.Tensor) -> torch.Tensor:
    """Minibatch CKA in float64 from the float32 activations themselves, written out."""
    sums: torch.Tensor | None = None
    for batch in images.split(BATCH):
        grams: list[torch.Tensor] = []
        for model in models:
            seen: set[nn.Module] = set()

            def hook(module, inputs, output, seen=seen, grams=grams):
                if module not in seen:  # the first call
                    seen.add(module)
                    x = output.flatten(1).double()
                    x = x - x.mean(dim=0)
                    grams.append(center_gram(x @ x.T, "unbiased").flatten())

            handles = [
                m.register_forward_hook(hook) for m in model.modules() if isinstance(m, LAYERS)
            ]
            with torch.no_grad():
                model(batch)
            for handle in handles:
                handle.remove()
        stacked = torch.stack(grams)
        hsic = stacked @ stacked.T
        sums = hsic if sums is None else sums + hsic
    own = sums.diagonal()
    return (sums / (own[:, None] * own[None, :]).sqrt())[:50, 50:]


def test_layer_grid(benchmark, record):
    images = torch.rand(IMAGES, 3, 32, 32)
    a, b = networks(images)

    def ours(precision=None):
        return compare(
            a,
            b,
            images,
            layers=is_counted,
            calls="first",
            batch_size=BATCH,
            shuffle=False,  # the batches of the oracle
            precision=precision,
            names=["resnet18", "resnet34"],
        )

    truth = float64_grid([a, b], images)
    errors = {}
    for precision in ("float32", "bfloat16"):
        grid = torch.as_tensor(ours(precision).between("resnet18", "resnet34").value)
        assert grid.shape == (50, 90)
        errors[precision] = float((grid - truth).abs().max())
        assert errors[precision] < tolerance(precision)

    alternatives = {
        "forwards in the process that compares": lambda: forwards([a, b], images),
        "float32": ours,
        "bfloat16": lambda: ours("bfloat16"),
    }
    layers = [
        [name for name, m in model.named_modules() if is_counted(name, m)] for model in (a, b)
    ]
    for name, grid_of in peers.layer_grids().items():
        alternatives[name] = functools.partial(
            grid_of, a, b, [[x] for x in images.split(BATCH)], *layers
        )
        # They keep what in-place layers overwrite, and round what they do not centre.
        errors[name] = float((alternatives[name]() - truth).abs().max())
    with in_own_process(alone) as bare:
        times = side_by_side({"forwards": bare, **alternatives}, rounds=9)
    for name, timing in times.items():
        record(
            name,
            **timing.row(),
            ratio_to_forwards=timing.median / times["forwards"].median,
            max_error=errors.get(name, 0.0),
        )
    benchmark.pedantic(ours, rounds=3)
