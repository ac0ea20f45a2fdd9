"""A comparison by several processes: the result of one, and an end for all where one fails."""

from __future__ import annotations

import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from python_tests.support.ranks import launch
from python_tests.support.shared_comparisons import CASES, compared, images, network
from repsim_fast import SimilarityResult, compare
from repsim_fast._core.processes import members

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo back end",
)

_ALL = """
from python_tests.support.shared_comparisons import *
group = dist.group.WORLD
for number, name in enumerate(CASES):
    result = compared(name, process_group=group)
    result.save(f"{folder}/{number}-{rank}.safetensors")

data = Counted(images(90))
compare(network(0), DataLoader(data, batch_size=8), process_group=group)
own = {i for i in range(90) if i // 8 % size == rank}
assert sorted(data.read) == sorted(own), data.read
"""


@pytest.mark.parametrize("size", [2, 3])
def test_the_result_is_that_of_one_process(size: int, tmp_path: Path) -> None:
    for code, output in launch(_ALL, size, tmp_path):
        assert code == 0, output
    for number, name in enumerate(CASES):
        one = compared(name)
        for rank in range(size):
            found = SimilarityResult.load(tmp_path / f"{number}-{rank}.safetensors")
            _check_equal(one, found, f"{name}, process {rank} of {size}")


def _check_equal(one: SimilarityResult, found: SimilarityResult, case: str) -> None:
    for field in fields(one):
        ours, theirs = getattr(one, field.name), getattr(found, field.name)
        if field.name in ("seconds", "settings"):
            continue
        if isinstance(ours, np.ndarray):
            # Sums of at most 140 float64 numbers near 1 in another order.
            np.testing.assert_allclose(
                theirs,
                ours,
                rtol=0,
                atol=1e-13 * max(1.0, abs(ours[np.isfinite(ours)]).max(initial=0)),
                err_msg=case,
            )
        elif field.name == "notes":
            # Which batch a layer was missed in is that of the process that missed it.
            assert [note[:60] for note in theirs] == [note[:60] for note in ours], case
        else:
            assert theirs == ours, (case, field.name)
    if one.replicates is not None:
        assert found.replicates is not None
        np.testing.assert_allclose(found.replicates, one.replicates, atol=1e-13, err_msg=case)


_FAILURES = """
import time
from python_tests.support.shared_comparisons import *
from torch.utils.data import DistributedSampler
group = dist.group.WORLD

def refused(kind, *words, **options):
    start = time.monotonic()
    try:
        compare(**{"models": network(0), "data": images(80), "batch_size": 8,
                   "process_group": group, **options})
    except BaseException as error:
        assert type(error).__name__ == kind, repr(error)
        assert all(word in str(error) for word in words), error
        assert time.monotonic() - start < 30
        return error
    raise AssertionError(f"nothing raised, expected {kind}")

other = "OtherProcessError"
last = size - 1

class Fails(nn.Linear):
    # In its third batch, counted from 0: number 2 * size + last, for others have none after it.
    calls, kind = 0, RuntimeError
    def forward(self, x):
        self.calls += 1
        if rank == last and self.calls == 3:
            raise self.kind("weights are gone")
        return super().forward(x)

def fails(kind=RuntimeError):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), Fails(36, 3), nn.ReLU())
    model[1].kind = kind
    return model

# An exception in a model: all of them have the result of the batches before.
n = 2 * size + last
if rank == last:
    error = refused("RuntimeError", f"failed in batch {n} on", "weights are gone", models=fails())
else:
    error = refused(other, f"process {last} of {size} failed", f"batch {n}", models=fails())
assert n - 1 <= error.partial_result.n_batches <= n + size, error.partial_result
counts = [None] * size
dist.all_gather_object(counts, error.partial_result.n_batches)
assert len(set(counts)) == 1

# The same of Ctrl-C in one process, and of a model that exits.
for kind in (KeyboardInterrupt, SystemExit):
    if rank == last:
        error = refused(kind.__name__, models=fails(kind))
    else:
        error = refused(other, f"process {last} of {size}", kind.__name__, models=fails(kind))
    assert error.partial_result.n_batches >= n - 1, error.partial_result

# A bad batch, of values and of shape.
data = list(images(80).split(8))
data[last] = data[last] * float("nan")
refused(*(("ValueError", "NaN") if rank == last else (other, f"process {last} of {size}", "NaN")),
        data=data, batch_size=None)
data[last] = "no tensor"
refused(*(("TypeError", "batch") if rank == last else (other, f"process {last} of {size}")),
        data=data, batch_size=None)

# Before the first batch, and after the last.
refused(*(("ValueError", "maps") if rank == last else (other, f"process {last} of {size}", "maps")),
        maps="no such form" if rank == last else "flatten")
refused(*(("ValueError", "jackknife") if rank == 0 else (other, f"process 0 of {size}")),
        measure="cca", jackknife=81)

# What is the same mistake in all.
refused("ValueError", "batch of at least 4", data=images(6), batch_size=2)
refused("ValueError", "cuda_graph", cuda_graph=True)
from repsim_fast import record
recording = record(network(0), images(80), f"{folder}/recording-{rank}", batch_size=8)
refused("ValueError", "got recordings", models={"model": network(0), "recording": recording})
refused("ValueError", "weights", "same checkpoint", models=network(rank))
refused("ValueError", "contents of the data", data=images(80) + rank)
refused("ValueError", "seed", seed=rank)
set_ = TensorDataset(images(80))
refused("ValueError", "DistributedSampler", batch_size=None,
        data=DataLoader(set_, 8, sampler=DistributedSampler(set_)))
generator = torch.Generator().manual_seed(rank)
refused("ValueError", "order of the data", "generator", batch_size=None,
        data=DataLoader(set_, 8, shuffle=True, generator=generator))

# Another order in each process, which nothing tells but the samples.
order = torch.randperm(80, generator=generator)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    result = compare(network(0), list(images(80)[order].split(8)), process_group=group)
assert any("read some of the same samples" in note for note in result.notes), result.notes

# After all this the group is as before.
assert compare(network(0), images(80), process_group=group).n_samples == 80
"""


@pytest.mark.parametrize("size", [2, 3])
def test_a_failure_ends_all_with_a_message(size: int, tmp_path: Path) -> None:
    for code, output in launch(_FAILURES, size, tmp_path):
        assert code == 0, output


_KILLED = """
import os, signal, time
from python_tests.support.shared_comparisons import *

class Dies(nn.Flatten):
    calls = 0
    def forward(self, x):
        self.calls += 1
        if rank == 1 and self.calls == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)
        return super().forward(x)

start = time.monotonic()
try:
    compare(nn.Sequential(Dies(), nn.Linear(36, 3)), images(8000), batch_size=8,
            layers="1", process_group=dist.group.WORLD)
finally:
    print("after", time.monotonic() - start, flush=True)
"""


def test_a_killed_process_ends_the_others(tmp_path: Path) -> None:
    start = time.monotonic()
    first, second, third = launch("torch.manual_seed(0)\n" + _KILLED, 3, tmp_path, timeout=100)
    assert second.code == -9
    for one in (first, third):
        assert one.code == 1
        assert "cannot reach the others: one was killed" in one.output, one.output
        seconds = float(one.output.split("after ")[1].split()[0])
        assert seconds < 30, one.output
    assert time.monotonic() - start < 100


def test_a_share_of_the_samples_is_said(tmp_path: Path) -> None:
    """What two processes would each take for the result, without a group."""
    data = TensorDataset(images(80))
    loader = DataLoader(data, 8, sampler=DistributedSampler(data, num_replicas=2, rank=0))
    with pytest.warns(UserWarning, match="1 of 2.*process_group"):
        result = compare(network(0), loader)
    assert result.n_samples == 40


def test_what_is_no_group_is_refused() -> None:
    with pytest.raises(TypeError, match="process_group must be a group"):
        compare(nn.Linear(4, 2), torch.rand(20, 4), process_group="world")  # type: ignore[call-overload]
    assert members(None).size == 1
