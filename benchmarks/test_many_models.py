"""Comparisons with the layers that are compared unasked, over the bare forward passes: ResNet-18
with ResNet-34, and 2 to 32 ResNet-18.

512 images 3x32x32, batches of 128, torchvision's definitions, batch-norm statistics calibrated.
Targets: 1.25 times the forwards for the pair (1.18 with products in bfloat16) with two threads, 1.2
for M models. The forwards are those of models and images as they are made, with channels first, in
a process of their own, as a script without this library has them. Beside them those in the process
that compares, and those of models and images that were put channels last before the clock started,
as `compare` does for its own passes. "Operations" are those of the Grams and of the forwards over
those of the forwards: the time if Grams went at the rate of convolutions and all else were free.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from own_process import in_own_process
from timing import side_by_side, tolerance
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from repsim_fast import SimilarityResult, compare

torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")

BATCH, IMAGES = 128, 512
PRECISIONS = ("float32", "bfloat16")
CHANNELS_LAST = "forwards with channels last"
BESIDE = "forwards in the process that compares"


def network(kind: str, seed: int, images: torch.Tensor) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = getattr(torchvision.models, kind)()
    model.train()
    with torch.no_grad():
        for _ in range(3):
            model(images[:BATCH])
    return model.eval()


def forwards(models: dict[str, nn.Module], images: torch.Tensor) -> None:
    with torch.inference_mode():
        for batch in images.split(BATCH):
            for model in models.values():
                model(batch)


def alone(kinds: dict[str, tuple[str, int]]) -> Callable[[], None]:
    """The forwards of these networks, for a process of their own."""
    images = torch.rand(IMAGES, 3, 32, 32)
    models = {name: network(*kind, images) for name, kind in kinds.items()}
    return lambda: forwards(models, images)


def compared(
    models: dict[str, nn.Module], images: torch.Tensor, precision: str
) -> SimilarityResult:
    return compare(models, images, batch_size=BATCH, precision=precision, progress=False)


def operations(model: nn.Module, layers: tuple[str, ...], image: torch.Tensor) -> tuple[int, int]:
    """Multiplications and additions of a batch: of the Grams of layers, each tensor counted once
    and one half of what is symmetric, and of the forward pass."""
    features: dict[tuple[int, int], int] = {}
    held = []  # so that no other tensor takes its place

    def seen(module: nn.Module, inputs: object, output: torch.Tensor) -> None:
        held.append(output)
        features[id(output), output._version] = output.numel()

    called = {name.partition("#")[0] for name in layers}  # each of their calls is a layer
    hooks = [model.get_submodule(name).register_forward_hook(seen) for name in called]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image)
    for hook in hooks:
        hook.remove()
    return sum(features.values()) * BATCH * (BATCH + 1), counter.get_total_flops() * BATCH


def measure(case: str, kinds: dict[str, tuple[str, int]], rounds: int, record) -> None:
    images = torch.rand(IMAGES, 3, 32, 32)
    models = {name: network(*kind, images) for name, kind in kinds.items()}
    results = {precision: compared(models, images, precision) for precision in PRECISIONS}
    first, *_, other = models
    # In float64 throughout, of two of the models alone.
    pair = {name: models[name].double() for name in (first, other)}
    truth = compared(pair, images.double(), "float64").between(first, other).value
    for model in pair.values():
        model.float()
    errors = {
        precision: float(abs(result.between(first, other).value - truth).max())
        for precision, result in results.items()
    }
    assert all(error < tolerance(precision) for precision, error in errors.items()), errors
    last_images = images.contiguous(memory_format=torch.channels_last)
    last = {n: copy.deepcopy(m).to(memory_format=torch.channels_last) for n, m in models.items()}
    with in_own_process(alone, kinds) as bare:
        times = side_by_side(
            {
                "forwards": bare,
                BESIDE: lambda: forwards(models, images),
                CHANNELS_LAST: lambda: forwards(last, last_images),
                **{p: lambda p=p: compared(models, images, p) for p in PRECISIONS},
            },
            rounds=rounds,
            warmup=1,
        )
    counted = zip(models.values(), results["float32"].layers, strict=True)
    grams, forward = zip(*(operations(m, names, images[:1]) for m, names in counted), strict=True)
    layers = [len(names) for names in results["float32"].layers]
    for name, timing in times.items():
        record(
            f"{case}, {name}",
            **timing.row(),
            ratio_to_forwards=timing.median / times["forwards"].median,
            operations_to_forwards=1 + sum(grams) / sum(forward) * (name in errors),
            layers=layers if len(set(layers)) > 1 else layers[0],
            max_error=errors.get(name, 0.0),
        )


def test_default_layers(record):
    kinds = {kind: (kind, 0) for kind in ("resnet18", "resnet34")}
    measure("resnet18 and resnet34", kinds, 9, record)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("count", [2, 4, 8, 16, 32])
def test_many_models(count, record):
    kinds = {f"seed {seed}": ("resnet18", seed) for seed in range(count)}
    measure(f"{count} resnet18", kinds, 9 if count < 8 else 5, record)
