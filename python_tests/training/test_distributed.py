"""Two processes started by torchrun train the networks that one process would."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from python_tests.support.torchrun import torchrun

# Without random starts, which differ between processes, nothing but rounding differs.
SCRIPT = """
import os, sys, torch
from pathlib import Path
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from repsim_fast.attacks import PGD
from repsim_fast.training import Evaluation, Saving, StopTraining, train

torch.set_num_threads(1)
folder = Path(sys.argv[1])
size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
images = torch.rand(70, 1, 8, 8, generator=torch.Generator().manual_seed(0))
labels = torch.arange(70) % 3

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3))

history = train(
    network(), (images, labels), method="pgd",
    method_options={"eps": 0.3, "steps": 2, "norm": "l2", "random_start": False},
    epochs=2, batch_size=16, lr=0.05,
    evaluation=Evaluation((images, labels), PGD(0.05, random_start=False)),
    saving=Saving(folder / "memory", log=folder / "log.jsonl"), progress=False,
)
assert history.last.robust_accuracy is not None

def stop(model, record):
    assert rank == 0
    if record.epoch == 1:
        raise StopTraining("enough")

data = TensorDataset(images, labels)
loader = DataLoader(data, 16 // size, sampler=DistributedSampler(data, size, rank, seed=1))
history = train(
    network(), loader, epochs=3, lr=0.05, evaluation=Evaluation(DataLoader(data, 32)),
    saving=Saving(folder / "loader"), on_epoch=stop, progress=False,
)
assert len(history) == 2, len(history)
assert history.stopped is not None

def fail(model, record):
    raise OSError("disk full")

try:
    train(network(), (images, labels), epochs=2, on_epoch=fail, progress=False)
except RuntimeError as error:
    assert "after epoch 0" in str(error), error
else:
    raise AssertionError("both processes end when on_epoch fails in one")

uneven = [(images[:8], labels[:8])] * (2 + rank)
try:
    train(network(), uneven, epochs=1, progress=False)
except ValueError as error:
    assert size == 2 and "as many batches" in str(error), error
else:
    assert size == 1
"""


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo back end",
)
def test_two_processes_train_like_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path / "one")])
    runpy.run_path(str(script))
    done = torchrun(script, tmp_path / "two")
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    for kind in ("memory", "loader"):
        one, two = (load_file(tmp_path / n / kind / "last.safetensors") for n in ("one", "two"))
        for key, value in one.items():
            assert torch.allclose(value, two[key], atol=1e-4), (kind, key)
    assert len((tmp_path / "two" / "log.jsonl").read_text().splitlines()) == 2
