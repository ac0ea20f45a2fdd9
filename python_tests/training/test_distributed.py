"""Two processes started by torchrun train the network that one process would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

MEMORY = """
import sys, torch
from torch import nn
from repsim_fast.attacks import PGD
from repsim_fast.training import Evaluation, Saving, train

torch.set_num_threads(1)
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3))
images = torch.rand(70, 1, 8, 8, generator=torch.Generator().manual_seed(0))
labels = torch.arange(70) % 3
history = train(
    net, (images, labels), method="pgd",
    method_options={"eps": 0.3, "steps": 2, "norm": "l2", "random_start": False},
    epochs=2, batch_size=16, lr=0.05,
    evaluation=Evaluation((images, labels), PGD(0.05, random_start=False)),
    saving=Saving(sys.argv[1], log=sys.argv[1] + "/log.jsonl"), progress=False,
)
print(history.last.loss, history.last.clean_accuracy, history.last.robust_accuracy)
"""

# Batches of a process in the order of its sampler; what on_epoch says reaches both processes.
LOADER = """
import os, sys, torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from repsim_fast.training import Evaluation, Saving, StopTraining, train

torch.set_num_threads(1)
torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3))
images = torch.rand(70, 1, 8, 8, generator=torch.Generator().manual_seed(0))
data = TensorDataset(images, torch.arange(70) % 3)
size, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
sampler = DistributedSampler(data, size, rank, seed=1)

def stop(model, record):
    assert rank == 0
    if record.epoch == 1:
        raise StopTraining("enough", {"seen": len(images)})

history = train(
    net, DataLoader(data, 16 // size, sampler=sampler), epochs=3, lr=0.05,
    evaluation=Evaluation(DataLoader(data, 32)), saving=Saving(sys.argv[1]),
    on_epoch=stop, progress=False,
)
assert len(history) == 2, len(history)
assert history.stopped is not None
"""


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo back end",
)
@pytest.mark.parametrize("text", [MEMORY, LOADER], ids=["memory", "loader"])
def test_two_processes_train_like_one(tmp_path: Path, text: str) -> None:
    """Without random starts, which differ between processes, nothing but rounding differs."""
    script = tmp_path / "script.py"
    script.write_text(text)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    launch = ["-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=0"]
    launch += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0"]
    for name, prefix in (("one", []), ("two", launch)):
        (tmp_path / name).mkdir()
        command = [sys.executable, *prefix, str(script), str(tmp_path / name)]
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=140, check=False
        )
        assert result.returncode == 0, result.stderr[-2000:]
    one, two = (load_file(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for key, value in one.items():
        assert torch.allclose(value, two[key], atol=1e-4), key
    if text == MEMORY:
        assert len((tmp_path / "two" / "log.jsonl").read_text().splitlines()) == 2
