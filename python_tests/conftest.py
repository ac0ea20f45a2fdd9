"""What holds for every test: seeds, threads, and which tests need a GPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from python_tests.support.op_tester import REQUIRE_CUDA, cuda_problem

# Asked before any test hides it: CUDA looks once in a process.
HAS_GPU = torch.cuda.is_available()

# Of a worker and of the processes that its tests start; OMP_NUM_THREADS=2 runs all with two.
THREADS = int(os.environ.setdefault("OMP_NUM_THREADS", "1"))


def pytest_report_header() -> str:
    problem = "" if REQUIRE_CUDA else cuda_problem()
    return f"tests marked cuda: {f'deselected ({problem})' if problem else 'run'}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without a GPU, tests of one are not part of the suite."""
    if REQUIRE_CUDA or not cuda_problem():
        return
    needing = [item for item in items if item.get_closest_marker("cuda")]
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if not item.get_closest_marker("cuda")]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Where a GPU is required, a test of it that was skipped has failed."""
    report = yield
    if REQUIRE_CUDA and report.skipped and item.get_closest_marker("cuda"):
        report.outcome = "failed"
        report.longrepr = f"REPSIM_REQUIRE_CUDA=1, but this was skipped: {report.longrepr}"
    return report


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def _gpu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of one alone. Others hold results of the CPU to each other, also those of commands,
    which would take a GPU where there is one, and there convolutions in TF32."""
    if HAS_GPU and not request.node.get_closest_marker("cuda"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.fixture(autouse=True)
def _threads() -> None:
    """Of torch, the same for every test, whatever the one before has set."""
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real images beside the repository (or at REPSIM_DATA); tests that need them skip without."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("REPSIM_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no image data at {folder} (set REPSIM_DATA)")
    return folder
