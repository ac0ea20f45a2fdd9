"""The kernel study (benchmarks/kernels) on edge shapes, and the scripts that measure kernels."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.gpu_summary import lines
from benchmarks.kernels.study import GRAM_ERROR, Kernels, finished, gram_runs
from benchmarks.timing import machine
from python_tests.support.op_tester import devices

HERE = Path(__file__).resolve().parent
SCRIPTS = HERE.parents[1] / "benchmarks" / "kernels"


@pytest.fixture(scope="module", params=devices())
def kernels(request: pytest.FixtureRequest) -> Kernels:
    return Kernels(request.param)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6, 7])
def test_gram_versions(kernels: Kernels, version: int, dtype: torch.dtype) -> None:
    shapes = [
        (2, 1),
        (5, 31),
        (17, 130),
        (64, 70),
        *([(65, 900), (128, 69)] if version != 5 else []),
        *([(200, 72), (256, 300)] if version in (3, 7) else []),
    ]
    for n, p in shapes:
        padded = torch.full((n, -(-p // 8) * 8 + 8), torch.nan, device=kernels.device, dtype=dtype)
        x = padded[:, :p]  # rows that start at 16 bytes, and NaN between them
        means = torch.where(torch.arange(p) % 2 == 0, 100.0, 1.0)
        x.copy_(torch.randn(n, p) + means)
        runs = gram_runs(kernels, version, [x])
        if runs is None:
            pytest.skip("this GPU has not what the version needs: compute capability 9.0")
        run, tiles = runs
        run(0)
        wide = x.double()
        wide -= wide.mean(dim=0)
        expected = (wide @ wide.T).tril()
        error = (finished(version, tiles, n) - expected).norm()
        assert error <= GRAM_ERROR * expected.norm(), (n, p)


@pytest.mark.parametrize(("version", "limit"), [(3, 256), (5, 64), (6, 128), (7, 256)])
def test_single_passes_have_a_limit(kernels: Kernels, version: int, limit: int) -> None:
    for n in (limit, limit + 1):
        runs = gram_runs(kernels, version, [torch.randn(n, 8, device=kernels.device)])
        assert (runs is None) == (n > limit)


def rows_of(script: str, out: Path) -> list[dict[str, Any]]:
    """What a script writes without a GPU, and what it prints of it."""
    command = [sys.executable, str(SCRIPTS / script), "--device", "cpu", "--out", str(out)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    content = json.loads(out.read_text())
    assert content["machine"]["commit"]
    rows: list[dict[str, Any]] = content["rows"]
    assert all(row["right"] for row in rows)
    # Nothing is timed, so nothing is claimed.
    assert printed.count("not measured yet") == len(rows)
    assert not any("ms" in row for row in rows)
    return rows


def test_the_study_checks_every_version_without_a_gpu(tmp_path: Path) -> None:
    rows = rows_of("study.py", tmp_path / "study.json")
    for family, versions in (("gram", {1, 2, 3, 4, 5, 6, 7}), ("linf", {1, 2, 3, 4, 5})):
        assert {row["version"] for row in rows if row["family"] == family} == versions


def test_every_operator_is_checked_without_a_gpu(tmp_path: Path) -> None:
    rows = rows_of("operators.py", tmp_path / "operators.json")
    names = {row["case"].split()[0] for row in rows}
    steps = {"pgd_linf_step", "pgd_l2_step", "pgd_l1_step", "random_start"}
    assert names == steps | {"centered_gram", "batched_svdvals", "batched_svd"}


def test_every_path_is_checked_without_a_gpu(tmp_path: Path) -> None:
    rows = rows_of("gram_paths.py", tmp_path / "gram_paths.json")
    assert {row["path"] for row in rows} == {
        *("single", "bulk", "warpgroups", "tiles64", "tiles128", "vendor", "matmul")
    }


def test_the_program_for_compute_sanitizer_is_right() -> None:
    command = [sys.executable, str(HERE / "small_shapes.py"), "--device", "cpu"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert printed.startswith("0 failures in ")


def test_a_machine_without_git_is_no_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine()["commit"] == "unknown"


def test_the_summary_names_what_is_missing(tmp_path: Path) -> None:
    machine = {"processor": "some", "torch": "2", "commit": "abc"}
    rows = [{"case": "one", "of_bound": 0.5}, {"case": "two"}]
    (tmp_path / "operators.json").write_text(json.dumps({"machine": machine, "rows": rows}))
    learnt = {"case": "a", "clean": 38.0, "robust": 26.0, "reached": False}
    learnt |= {"published_clean": 41.5, "published_robust": 26.58}
    (tmp_path / "learning.json").write_text(json.dumps({"machine": machine, "rows": [learnt]}))
    assert lines(tmp_path) == [
        "operators: some, torch 2, abc",
        "    50% of bound  one",
        "kernel_study: not measured yet",
        "gram_paths: not measured yet",
        "end_to_end: not measured yet",
        "learning: some, torch 2, abc",
        "  38.0/26.0, published 41.5/26.6: NOT reached  a",
    ]
