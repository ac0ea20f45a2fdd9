"""What class selectivity of all ReLU layers of ResNet-18 costs beside the bare forward passes.

256 random images 3x64x64, as Tiny ImageNet's, of 10 and of 200 classes.
"""

from __future__ import annotations

import time

import pytest
import torch
from timing import side_by_side

from repsim_fast.analysis.selectivity import class_selectivity, selectivity
from repsim_fast.models import build

N, BATCH = 256, 32
# At most this many times the bare passes.
TARGET = 1.1


@pytest.mark.parametrize("classes", [10, 200])
def test_selectivity(classes, record):
    pytest.importorskip("torchvision", reason="ResNet-18 is torchvision's")
    model = build("torchvision:resnet18", num_classes=200, seed=0).eval()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.to(device)
    x, y = torch.rand(N, 3, 64, 64, device=device), torch.arange(N, device=device) % classes

    @torch.no_grad()
    def bare():
        for part in x.split(BATCH):
            model(part)

    def ours():
        return selectivity(model, (x, y), batch_size=BATCH)

    found = ours()
    kept = {}

    def keep(name, output):
        kept.setdefault(name, []).append(output.mean((2, 3)))

    hooks = [
        m.register_forward_hook(lambda _, __, output, n=n: keep(n, output))
        for n, m in model.named_modules()
        if isinstance(m, torch.nn.ReLU)
    ]
    bare()
    for hook in hooks:
        hook.remove()
    assert len(found.units) == 17
    for name, units in kept.items():
        per_pass = len(units) * BATCH // N
        calls = [torch.cat(units[i::per_pass]) for i in range(per_pass)]
        for call, own in enumerate(calls):
            label = name if call == 0 else f"{name}#{call + 1}"
            want = class_selectivity(own.double(), y).cpu()
            torch.testing.assert_close(found.units[label], want, rtol=1e-4, atol=1e-5)
    # By the process's own clock on a CPU, which other processes may share.
    clock = time.perf_counter if device == "cuda" else time.process_time
    times = side_by_side({"bare": bare, "selectivity": ours}, rounds=7, warmup=1, clock=clock)
    ratio = times["selectivity"].median / times["bare"].median
    record(
        f"ResNet-18, {classes} classes", **times["selectivity"].row(),
        bare_s=times["bare"].median, ratio=ratio, target=TARGET,
    )  # fmt: skip
