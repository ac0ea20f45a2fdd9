"""`repsim-fast compare` and `record` in processes as torchrun starts them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest
import torch

from python_tests.support.commands import Run
from python_tests.support.forked import Forked
from repsim_fast import Recording
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
    assert output.count("resnet-8 is untrained") == 1, output
    assert output.count("samples in") == 1, output
    assert {path.name for path in two.iterdir()} == {path.name for path in one.iterdir()}
    alone, shared = load_folder(one), load_folder(two)
    np.testing.assert_allclose(shared.value, alone.value, rtol=0, atol=1e-6)
    np.testing.assert_allclose(shared.standard_error, alone.standard_error, rtol=0, atol=1e-6)
    assert shared.order_digest == alone.order_digest
    assert shared.settings["processes"] == 2


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo back end",
)
def test_networks_to_record_are_shared(tmp_path: Path) -> None:
    names = ["resnet-8", "none.safetensors", "resnet-14", "resnet-20"]
    command = ["record", *names, "--data", "digits", "--limit", "40", "--device", "cpu"]
    first, second = _together(*command, "--out", tmp_path)
    assert (first.returncode, second.returncode) == (1, 1)
    output, errors = first.stdout + second.stdout, first.stderr + second.stderr
    assert errors.count("none: FileNotFoundError") == 1, errors
    assert "1 of 4 failed: none; the others are recorded" in errors, errors
    assert output.count("recording 4 networks") == output.count("2 processes") == 1, output
    assert output.count("40 samples") == 3, output
    made = [Recording.open(path).name for path in sorted(tmp_path.glob("resnet*"))]
    assert made == ["resnet-14", "resnet-20", "resnet-8"]


# The second process is killed in its third batch.
_KILLED = """
import os, signal
if os.environ["RANK"] == "1":
    import repsim_fast.comparison.engine as engine
    step = engine.Engine.step
    def dies(self, batch, number):
        if number == 5:
            os.kill(os.getpid(), signal.SIGKILL)
        step(self, batch, number)
    engine.Engine.step = dies
"""


@pytest.mark.skipif(
    not torch.distributed.is_available() or not torch.distributed.is_gloo_available(),
    reason="this torch has no gloo back end",
)
def test_after_a_killed_process_the_same_command_goes_on(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command: list[str | Path] = [*COMMAND, "--every", "1", "--out", out]
    first, second = _together(*command, before=_KILLED)
    assert (first.returncode, second.returncode) == (1, -signal.SIGKILL), first.stderr
    sums = sorted((out / "sums").glob("sums*"))
    assert [path.name for path in sums] == [f"sums-{rank}-of-2.safetensors" for rank in range(2)]
    alone = run(*command)
    assert alone.exit_code == 1
    assert "has the sums of 2 processes, got 1" in alone.output
    before = [path.stat().st_mtime_ns for path in sums]
    wrong = run(*command, "--measure", "cca")
    assert "--every: expected --measure cka" in wrong.output
    assert [path.stat().st_mtime_ns for path in sums] == before
    first, second = _together(*command)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert not (out / "sums").exists()
    assert run(*COMMAND, "--out", tmp_path / "one").exit_code == 0
    want, found = load_folder(tmp_path / "one"), load_folder(out)
    np.testing.assert_allclose(found.value, want.value, rtol=0, atol=1e-6)
    assert found.order_digest == want.order_digest


def _together(*arguments: str | Path, before: str = "") -> list[CompletedProcess[str]]:
    """The command in two processes with what torchrun tells them, after a program."""
    with socket.socket() as any_free:
        any_free.bind(("127.0.0.1", 0))
        port = any_free.getsockname()[1]
    told = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    program = f"{before}\nfrom repsim_fast.cli import main\nmain()"
    running = [
        Forked(program, *arguments, env={**told, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"
    ]
    try:
        return [one.wait() for one in running]
    finally:
        for one in running:
            one.end()


def _launched(*arguments: str | Path) -> tuple[int, str, str]:
    """By torchrun itself, as users start it, in processes that import all by themselves."""
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
