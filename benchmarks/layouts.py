"""What comparisons gain from running convolutional networks with channels last, and from how many
images on.

    python benchmarks/layouts.py [--rounds 5] [--record]

Each network is compared with itself, of other weights, once as it is and once in the memory format
that ``compare`` chooses, in turn; the values are held against one another before anything is timed.
Times are the processor's, of one thread: the machine may have other work. The smallest cases are
those of which it depends on `FEWEST_IMAGES` and `FEWEST_PIXELS` whether a network is tried at all;
here it is, so that one sees from where on the trial pays for itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
import torchvision
from timing import machine, machine_name, side_by_side, write_json
from torch import nn

from repsim_fast import SimilarityResult, compare
from repsim_fast.comparison import layouts
from repsim_fast.models import build

BATCH = 64
AGREE = 2e-5  # of values with either format


def ours(name: str) -> Callable[[], nn.Module]:
    return partial(build, name, num_classes=10, in_channels=3)


def of_torchvision(name: str) -> Callable[[], nn.Module]:
    return partial(torchvision.models.get_model, name, weights=None, num_classes=10)


# Name, network, size of the images, their number.
CASES: list[tuple[str, Callable[[], nn.Module], int, int]] = [
    *[("ResNet-8", ours("resnet-8"), 8, count) for count in (256, 512, 1024, 2048, 4096)],
    *[("ResNet-20", ours("resnet-20"), 32, count) for count in (64, 128, 256, 512)],
    *[("ResNet-18", of_torchvision("resnet18"), 64, count) for count in (64, 128, 256)],
    ("WRN-16-2", ours("wrn-16-2"), 32, 256),
    ("PreActResNet-18, 16 wide", ours("preactresnet-18-w16"), 32, 256),
    ("VGG-16", ours("vgg-16"), 32, 256),
    ("MobileNetV3-small", of_torchvision("mobilenet_v3_small"), 96, 256),
    ("EfficientNet-B0", of_torchvision("efficientnet_b0"), 96, 128),
    ("DenseNet-121", of_torchvision("densenet121"), 64, 128),
    ("ConvNeXt-tiny", of_torchvision("convnext_tiny"), 64, 128),
    ("ShuffleNetV2", of_torchvision("shufflenet_v2_x1_0"), 96, 256),
]


def compared(
    models: dict[str, nn.Module], images: torch.Tensor, *, tried: bool
) -> SimilarityResult:
    """As `compare` does it, with a trial of the formats or without."""
    before = layouts.FEWEST_IMAGES, layouts.FEWEST_PIXELS
    layouts.FEWEST_IMAGES, layouts.FEWEST_PIXELS = (1, 1) if tried else (1 << 62, 1)
    try:
        return compare(models, images, batch_size=BATCH)
    finally:
        layouts.FEWEST_IMAGES, layouts.FEWEST_PIXELS = before


def measured(
    name: str, network: Callable[[], nn.Module], size: int, count: int, rounds: int
) -> dict[str, Any]:
    models = {}
    for seed, called in enumerate(("a", "b")):
        torch.manual_seed(seed)
        models[called] = network().eval()
    images = torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))
    tried, plain = (compared(models, images, tried=tried) for tried in (True, False))
    assert tried.layers == plain.layers
    # Layers that do not vary have no value: gates of networks without training.
    assert np.array_equal(np.isnan(tried.value), np.isnan(plain.value))
    error = float(np.nanmax(np.abs(tried.value - plain.value)))
    assert error < AGREE, (name, error)
    timings = side_by_side(
        {
            "as_it_is": partial(compared, models, images, tried=False),
            "chosen": partial(compared, models, images, tried=True),
        },
        rounds=rounds,
        warmup=0,
        clock=process_time,
    )
    return {
        "case": f"{name}, {count} images {size}x{size}",
        "pixels": count * size * size,
        **{f"{way}_{key}": value for way, t in timings.items() for key, value in t.row().items()},
        "ratio": timings["chosen"].median / timings["as_it_is"].median,
        "largest_difference": error,
        "rounds": rounds,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases whose names have this in them")
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    if arguments.only and arguments.record:
        parser.error("--record: expected all cases, got --only, whose results would replace them")
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        if arguments.only in case[0]:
            rows.append(measured(*case, arguments.rounds))
            shown = rows[-1].items()
            print("  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{v}" for k, v in shown))
    if arguments.record:
        path = Path(__file__).parent / "results" / machine_name() / "layouts.json"
        write_json(path, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
