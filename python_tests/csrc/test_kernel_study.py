"""The versions of the kernel study (benchmarks/kernels) on edge shapes, and its script."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.kernels.study import GRAM_ERROR, Kernels, gram_runs, lower_triangle

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "kernels"


@pytest.fixture(scope="module")
def kernels() -> Kernels:
    return Kernels("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_gram_versions(kernels: Kernels, version: int, dtype: torch.dtype) -> None:
    for (n, p), mean in itertools.product([(2, 1), (5, 31), (17, 130), (64, 70)], (1.0, 100.0)):
        padded = torch.full((n, -(-p // 8) * 8 + 8), torch.nan, device=kernels.device, dtype=dtype)
        x = padded[:, :p]  # rows that start at 16 bytes, and NaN between them
        x.copy_(torch.randn(n, p) + mean)
        runs = gram_runs(kernels, version, [x])
        if runs is None:
            pytest.skip("this GPU has no bulk copies: they need compute capability 9.0")
        run, tiles = runs
        run(0)
        wide = x.double()
        wide -= wide.mean(dim=0)
        expected = (wide @ wide.T).tril()
        error = (lower_triangle(tiles, n).double() - expected).norm()
        assert error <= GRAM_ERROR * expected.norm(), (n, p, mean)


def test_the_fragments_have_a_limit(kernels: Kernels) -> None:
    assert gram_runs(kernels, 5, [torch.randn(65, 8, device=kernels.device)]) is None


def test_the_study_checks_every_version_without_a_gpu(tmp_path: Path) -> None:
    out = tmp_path / "study.json"
    command = [sys.executable, str(SCRIPTS / "study.py"), "--device", "cpu", "--out", str(out)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    content = json.loads(out.read_text())
    rows = content["rows"]
    assert {row["version"] for row in rows if row["family"] == "gram"} == {1, 2, 3, 4, 5}
    assert {row["version"] for row in rows if row["family"] == "linf"} == {1, 2, 3, 4, 5}
    assert all(row["right"] for row in rows)
    # Nothing is timed, so nothing is claimed.
    assert printed.count("not measured yet") == len(rows)
    assert not any("ms" in row for row in rows)
    assert content["machine"]["commit"]
