"""Time of the layer grid of ResNet-18 against ResNet-34, before and after.

    python benchmarks/accuracy/grid_time.py --before CHECKOUT \
        --out benchmarks/results/accuracy/grid_time.json

Safeguards must not cost what the grid is fast by; `benchmarks/test_layer_grid.py` has the same case
beside peers. The two versions must agree to rounding.
"""

from __future__ import annotations

import functools
import inspect

import torch
import torchvision
from torch import Tensor, nn
from versions import compare_versions  # before repsim_fast: it finds the version

from repsim_fast import compare

BATCH, IMAGES = 128, 512
LAYERS = (nn.Conv2d, nn.BatchNorm2d, nn.ReLU, nn.Linear)
# The batches as they come, which earlier versions always took.
IN_ORDER = {"shuffle": False} if "shuffle" in inspect.signature(compare).parameters else {}


@functools.cache
def networks() -> tuple[list[nn.Module], Tensor]:
    torch.manual_seed(0)
    images = torch.randn(IMAGES, 3, 32, 32)
    models = [torchvision.models.resnet18(), torchvision.models.resnet34()]
    for model in models:
        with torch.no_grad():
            for _ in range(3):
                model(images)
        model.eval()
    return models, images


def forwards() -> None:
    models, images = networks()
    with torch.no_grad():
        for batch in images.split(BATCH):
            for model in models:
                model(batch)


def grid(precision: str | None) -> Tensor:
    models, images = networks()
    result = compare(
        models,
        images,
        layers=lambda name, module: isinstance(module, LAYERS),
        calls="first",
        batch_size=BATCH,
        precision=precision,
        names=["a", "b"],
        **IN_ORDER,
    )
    return torch.as_tensor(result.between("a", "b").value)


CASES = {
    "layer grid, float32: mean": lambda: grid(None).mean(),
    "layer grid, bfloat16: mean": lambda: grid("bfloat16").mean(),
}
TIMED = {
    "layer grid over bare forward passes, float32": lambda: grid(None),
    "layer grid over bare forward passes, bfloat16": lambda: grid("bfloat16"),
}

if __name__ == "__main__":
    compare_versions(CASES, times=TIMED, unit=forwards)
