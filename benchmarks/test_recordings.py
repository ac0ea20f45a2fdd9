"""What a recording costs beside a comparison of the one model, and what comparing them costs.

Processor time: what the disk takes beside that is the disk's. 256 random images 3x32x32 in batches
of 64, convolutions and activations of ResNet-20.
"""

from __future__ import annotations

import itertools
import shutil
import time

import numpy as np
import pytest
import torch
from timing import side_by_side

from repsim_fast import SimilarityResult, compare
from repsim_fast import record as record_model
from repsim_fast.models import build
from repsim_fast.ops import centered_gram

N, BATCH, MODELS = 256, 64, 6
# At most this many times compare of the one model.
TARGET = 1.05
LAYERS = ["*conv*", "*relu*"]


def network(seed: int) -> torch.nn.Module:
    return build("resnet-20", num_classes=10, in_channels=3, seed=seed).eval()


@pytest.mark.parametrize("stored", [None, "float16"])
def test_recording(stored, record, tmp_path):
    model, x = network(0), torch.rand(N, 3, 32, 32)
    options = {"batch_size": BATCH, "layers": LAYERS}
    numbers = itertools.count()

    def alone():
        return compare([model], x, names=["m"], **options)

    def recording():
        folder = tmp_path / str(next(numbers))
        made = record_model(model, x, folder, name="m", stored=stored, **options)
        size = made.n_bytes
        shutil.rmtree(folder)
        return size

    made = record_model(model, x, tmp_path / "kept", name="m", stored=stored, **options)
    off = np.abs(compare([made]).value - alone().value).max()
    assert off == 0 if stored is None else off < 1e-4
    times = side_by_side(
        {"compare": alone, "record": recording}, rounds=15, warmup=1, clock=time.process_time
    )
    record(
        f"record, {stored or 'as computed'}", **times["record"].row(),
        compare_s=times["compare"].median,
        ratio=times["record"].median / times["compare"].median, target=TARGET,
        layers=len(made.layers), mebibytes=made.n_bytes / 2**20, largest_error=float(off),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:recordings of")
@pytest.mark.parametrize("stored", [None, "float16"])
def test_comparing(stored, record, tmp_path):
    models = {f"net {seed}": network(seed) for seed in range(MODELS)}
    x = torch.rand(N, 3, 32, 32)
    options = {"batch_size": BATCH, "layers": LAYERS}
    made = [
        record_model(model, x, tmp_path / name, stored=stored, **options)
        for name, model in models.items()
    ]
    want = compare(models, x, **options)
    got = SimilarityResult.from_recordings(made)
    off = np.abs(got.value - want.value).max()
    assert off == 0 if stored is None else off < 1e-4
    assert got.models == want.models
    layers = sum(len(one.layers) for one in made)
    grams = torch.randn(layers, BATCH * (BATCH - 1) // 2)

    def products():
        for _ in range(N // BATCH):
            centered_gram(grams, centering="none")

    times = side_by_side(
        {
            "recordings": lambda: SimilarityResult.from_recordings(made),
            "models": lambda: compare(models, x, **options),
            "products": products,
        },
        rounds=7,
        warmup=1,
        clock=time.process_time,
    )
    record(
        f"compare {MODELS} recordings, {stored or 'as computed'}", **times["recordings"].row(),
        models_s=times["models"].median, products_s=times["products"].median,
        ratio=times["recordings"].median / times["models"].median, layers=layers,
        mebibytes=sum(one.n_bytes for one in made) / 2**20, largest_error=float(off),
    )  # fmt: skip
