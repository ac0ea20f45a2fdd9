"""`repsim-fast compare` in the processes that torchrun starts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from python_tests.support.commands import Run
from repsim_fast.report.folder import load_folder

COMMAND = ["compare", "resnet-8", "--data", "digits", "--limit", "64"]
COMMAND += ["--batch-size", "8", "--layers", "stage3*", "--device", "cpu"]


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo back end",
)
def test_the_first_process_writes_the_result_of_one(run: Run, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(*COMMAND, "--out", one).exit_code == 0
    code, output, errors = _launched(*COMMAND, "--out", two)
    assert code == 0, errors
    assert output.count("comparing resnet-8") == 1, output
    assert output.count("2 processes") == 1, output
    assert output.count("images in") == 1, output
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    alone, shared = load_folder(one), load_folder(two)
    np.testing.assert_allclose(shared.value, alone.value, rtol=0, atol=1e-6)
    np.testing.assert_allclose(shared.standard_error, alone.standard_error, rtol=0, atol=1e-6)
    assert shared.order_digest == alone.order_digest
    assert shared.settings["processes"] == 2


def _launched(*arguments: str | Path) -> tuple[int, str, str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--rdzv-backend=c10d", "--rdzv-endpoint=localhost:0", "-m", "repsim_fast"]
    process = subprocess.Popen(
        [*command, *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, errors = process.communicate(timeout=200)
    finally:
        process.terminate()  # torchrun then ends its workers, which it does not when it is killed
        process.wait(timeout=30)
    return process.returncode, output, errors
