"""A zoo recorded by several processes, which share its models."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from python_tests.support.ranks import launch
from python_tests.support.shared_comparisons import images, network
from repsim_fast import SimilarityResult, compare_zoo
from repsim_fast.comparison.recording_files import INDEX, part_path

pytestmark = pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo back end",
)

_ZOO = """
import os, signal, warnings
from python_tests.support.shared_comparisons import *
from repsim_fast import compare_zoo
from repsim_fast.comparison.processes import OtherProcessError
warnings.simplefilter("ignore")
group = dist.group.WORLD
made = []

def make(i):
    made.append(i)
    return network(i)

def failing():
    raise OSError("no such checkpoint")

zoo = {f"m{i}": (lambda i=i: make(i)) for i in range(5)}
"""

_WHOLE = (
    _ZOO
    + """
result = compare_zoo({"none": failing, **zoo}, images(80), f"{folder}/zoo", batch_size=8,
                     process_group=group, progress=True)
result.save(f"{folder}/{rank}.safetensors")
assert made == [i for i in range(5) if (i + 1) % size == rank], made

# Nothing is recorded again, and any process may lack the models that are there.
made.clear()
compare_zoo({**zoo, "m0": f"{folder}/zoo/m0"}, images(80), f"{folder}/zoo", batch_size=8,
            process_group=group)
assert not set(made) & {0}, made

def refused(kind, *texts, **changes):
    try:
        compare_zoo(**({"zoo": zoo, "data": images(80), "folder": f"{folder}/other",
                        "batch_size": 8, "process_group": group} | changes))
    except Exception as error:
        assert type(error).__name__ == kind, repr(error)
        assert all(text in str(error) for text in texts), repr(error)
    else:
        raise AssertionError("nothing was raised")

refused("ValueError", "folder: expected one that all processes see", folder=None)
refused("ValueError", "expected the same models in all", zoo={f"m{rank}": network(0)})
refused("RuntimeError" if rank == 0 else "OtherProcessError", "every model failed",
        "no such checkpoint", zoo={f"m{i}": failing for i in range(size)})
"""
)


@pytest.mark.parametrize("size", [2, 3])
def test_the_result_is_that_of_one_process(size: int, tmp_path: Path) -> None:
    for rank, (code, output) in enumerate(launch(_WHOLE, size, tmp_path)):
        assert code == 0, output
        assert ("record m" in output) == ("zoo: 100%" in output) == (rank == 0), output
    one = compare_zoo({f"m{i}": network(i) for i in range(5)}, images(80), batch_size=8)
    for rank in range(size):
        found = SimilarityResult.load(tmp_path / f"{rank}.safetensors")
        assert found.models == one.models
        assert list(found.settings["failed"]) == ["none"]
        assert any("model 'none' failed" in note for note in found.notes)
        np.testing.assert_array_equal(found.value, one.value)
        np.testing.assert_array_equal(found.standard_error, one.standard_error)


_KILLED = (
    _ZOO
    + """
class Dies(nn.Module):
    calls = 0
    def __init__(self):
        super().__init__()
        self.model = network(1)
    def forward(self, x):
        Dies.calls += 1
        if Dies.calls == 6 and not os.path.exists(f"{folder}/died"):
            open(f"{folder}/died", "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.model(x)

dies = Dies()
zoo["m1"] = lambda: dies
result = compare_zoo(zoo, images(80), f"{folder}/zoo", batch_size=8, every=2, process_group=group)
result.save(f"{folder}/{rank}.safetensors")
"""
)


def test_after_a_killed_process_the_same_call_goes_on(tmp_path: Path) -> None:
    first, second = launch(_KILLED, 2, tmp_path, timeout=100)
    assert second.code == -9
    assert first.code == 1
    assert "one was killed" in first.output, first.output
    there = {path.name for path in (tmp_path / "zoo").iterdir()}
    assert {"m0", "m1", "m2", "m4"} <= there
    kept = [tmp_path / "zoo" / "m0" / INDEX, part_path(tmp_path / "zoo" / "m1", 0)]
    before = [path.stat().st_mtime_ns for path in kept]
    for code, output in launch(_KILLED, 2, tmp_path, timeout=100):
        assert code == 0, output
    assert [path.stat().st_mtime_ns for path in kept] == before
    one = compare_zoo({f"m{i}": network(i) for i in range(5)}, images(80), batch_size=8)
    found = SimilarityResult.load(tmp_path / "0.safetensors")
    assert found.models == one.models
    np.testing.assert_array_equal(found.between("m0", "m4").value, one.between("m0", "m4").value)
    np.testing.assert_array_equal(
        found.between("m1", "m4").value[-1], one.between("m1", "m4").value[-1]
    )
