"""Which tests see a GPU, where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

A_GPU = """
import torch

torch.cuda.is_available = lambda: True
"""

TESTS = """
import os

import pytest
import torch


def test_not_of_a_gpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""
    assert not torch.cuda.is_available()


@pytest.mark.cuda
def test_of_a_gpu():
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0"
    assert torch.cuda.is_available()
"""


def test_only_tests_of_a_gpu_see_it(tmp_path: Path) -> None:
    """What other tests compare with is of the CPU."""
    (tmp_path / "a_gpu.py").write_text(A_GPU)
    (tmp_path / "test_both.py").write_text(TESTS)
    plugins = ("-p", "a_gpu", "-p", "python_tests.conftest", "-p", "no:cacheprovider")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", *plugins, tmp_path],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(tmp_path), str(ROOT)]),
            "CUDA_VISIBLE_DEVICES": "0",
            "REPSIM_REQUIRE_CUDA": "1",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout
