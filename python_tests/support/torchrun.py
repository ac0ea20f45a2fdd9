"""What torchrun does, but that the processes it starts do not import torch: its agent, and the
workers that this forks, come of the process that `forked` forks from."""

from __future__ import annotations

from pathlib import Path
from subprocess import CompletedProcess

from .forked import run_python

# What `torch.distributed.run` makes of --nproc-per-node=2 --rdzv-backend=c10d and
# --rdzv-endpoint=localhost:0, but for the way in which workers start.
_AGENT = """
import runpy, sys
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

def work(program, *arguments):
    sys.argv = [program, *arguments]
    runpy.run_path(program, run_name="__main__")

config = LaunchConfig(
    min_nodes=1, max_nodes=1, nproc_per_node=2, run_id="tests", rdzv_backend="c10d",
    rdzv_endpoint="localhost:0", max_restarts=0, start_method="fork",
)
elastic_launch(config, work)(*sys.argv[1:])
"""


def torchrun(script: Path, *arguments: object) -> CompletedProcess[str]:
    """A script in two processes with what torchrun tells them."""
    return run_python(_AGENT, script, *arguments)
