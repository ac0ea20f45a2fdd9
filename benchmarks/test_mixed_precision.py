"""Comparisons in automatic mixed precision over the bare forward passes in it: ViT-B/16 and
ViT-B/32, ResNet-18 and ResNet-34.

bfloat16 throughout: forward passes under autocast, products of the Grams of what they return. The
forwards are timed in a process of their own, as a script without this library has them. 32
images 3x224x224 in batches of 16 for the ViTs, 512 images 3x32x32 in batches of 128 for the
ResNets, the layers that are compared unasked. Targets: 1.18 times the forwards for a ViT-B/16, 1.2
for the ResNets, where the processor multiplies bfloat16; one that has it in software alone is not
measured. Values are held against products in float32 of the same activations.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from own_process import in_own_process
from timing import side_by_side, tolerance
from torch import nn

from repsim_fast import SimilarityResult, compare
from repsim_fast._core.precision import native_half

torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")

HALF = torch.bfloat16
CASES = {  # models, images, side, batch
    "vit_b_16": (("vit_b_16",), 32, 224, 16),
    "vit_b_16 and vit_b_32": (("vit_b_16", "vit_b_32"), 32, 224, 16),
    "resnet18 and resnet34": (("resnet18", "resnet34"), 512, 32, 128),
}


def network(kind: str, images: torch.Tensor) -> nn.Module:
    model = getattr(torchvision.models, kind)()
    if kind.startswith("resnet"):  # statistics of its batch norms
        model.train()
        with torch.no_grad():
            model(images)
    else:
        nn.init.normal_(model.heads.head.weight, std=0.02)  # made as zeros, which do not vary
    return model.eval()


def forwards(models: dict[str, nn.Module], images: torch.Tensor, batch: int) -> None:
    with torch.inference_mode(), torch.autocast("cpu", HALF):
        for some in images.split(batch):
            for model in models.values():
                model(some)


def made(case: str) -> tuple[dict[str, nn.Module], torch.Tensor, int]:
    """Models, images and size of the batches of a case."""
    kinds, count, side, batch = CASES[case]
    images = torch.rand(count, 3, side, side)
    return {kind: network(kind, images[:batch]) for kind in kinds}, images, batch


def alone(case: str) -> Callable[[], None]:
    """The forwards of a case, for a process of their own."""
    return functools.partial(forwards, *made(case))


@pytest.mark.skipif(native_half(torch.device("cpu")) is None, reason="no bfloat16 in hardware")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("case", CASES)
def test_mixed_precision(case, record):
    models, images, batch = made(case)

    def compared(precision: str) -> SimilarityResult:
        return compare(
            models, images, batch_size=batch, autocast=HALF, precision=precision, progress=False
        )

    truth, found = compared("float32"), compared("bfloat16")
    first, *_, last = [*models, *models]  # of one model its own grid
    error = float(abs(found.between(first, last).value - truth.between(first, last).value).max())
    assert error < tolerance("bfloat16"), error
    with in_own_process(alone, case) as bare:
        timed: dict[str, Callable[[], object]] = {
            "forwards": bare,
            "forwards in the process that compares": lambda: forwards(models, images, batch),
            "compare": lambda: compared("bfloat16"),
        }
        times = side_by_side(timed, rounds=7, warmup=1)
    layers = [len(names) for names in found.layers]
    for name, timing in times.items():
        record(
            f"{case}, {name}",
            **timing.row(),
            ratio_to_forwards=timing.median / times["forwards"].median,
            layers=layers if len(layers) > 1 else layers[0],
            max_error=error if name == "compare" else 0.0,
            multiplied_by="AMX" if torch.cpu._is_amx_tile_supported() else "AVX512-BF16",
        )
