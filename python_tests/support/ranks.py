"""A function in several processes that are one group of torch.distributed (gloo)."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from .forked import Forked

ROOT = Path(__file__).parents[2]
_START = """
import os, sys
import torch, torch.distributed as dist
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))  # as many as the test has
rank, size, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=size)
"""
# Without what the interpreter does at its end, which gloo's threads do not always survive
# ("terminate called without an active exception").
_END = """
dist.destroy_process_group()
sys.stdout.flush()
os._exit(0)
"""


class Ended(NamedTuple):
    """How a process ended, and what it printed."""

    code: int
    output: str


def launch(script: str, size: int, folder: Path, *, timeout: float = 250.0) -> list[Ended]:
    """Run a script with ``rank``, ``size`` and ``folder`` in processes that all end with it.

    Raises:
        AssertionError: One is still running after ``timeout`` seconds.
    """
    (folder / "meeting").unlink(missing_ok=True)
    environment = {"PYTHONPATH": str(ROOT)}
    program = _START + script + _END
    processes = [Forked(program, rank, size, folder, env=environment) for rank in range(size)]
    ended = []
    try:
        for rank, process in enumerate(processes):
            try:
                done = process.wait(timeout)
            except TimeoutError:
                raise AssertionError(f"process {rank} hangs") from None
            ended.append(Ended(done.returncode, done.stdout + done.stderr))
    finally:
        for process in processes:
            process.end()
    return ended
