"""Data-parallel training over the processes that torchrun starts.

Gradients are averaged by one reduction after the backward pass instead of by
``DistributedDataParallel``: that wrapper cannot follow the methods here, which call the model
several times before a backward pass or differentiate twice. What is lost is the overlap of
communication with the backward pass.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True)
class Processes:
    """The group this process belongs to; alone it has rank 0 of 1 and communicates nothing."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    def share(self, x: Tensor) -> Tensor:
        """This process's part of a batch's rows; sizes differ by at most one."""
        return x[self.rank :: self.size]

    def sum(self, x: Tensor) -> Tensor:
        """Sum of ``x`` over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(x)
        return x

    def average_gradients(self, model: nn.Module, weight: float) -> None:
        """Replace every gradient by the sum of ``weight`` times it over the processes."""
        if self.size == 1:
            return
        gradients = [p.grad for p in model.parameters() if p.grad is not None]
        flat = torch.cat([gradient.flatten() for gradient in gradients]) * weight
        dist.all_reduce(flat)
        for gradient, part in zip(
            gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    @torch.no_grad()
    def broadcast(self, model: nn.Module) -> None:
        """Give every process the first one's weights and buffers."""
        if self.size > 1:
            for value in model.state_dict().values():
                dist.broadcast(value, src=0)


def local_device(device: torch.device) -> torch.device:
    """ "cuda" without an index: torchrun's GPU for this process."""
    if device.type == "cuda" and device.index is None and "LOCAL_RANK" in os.environ:
        return torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    return device


def is_first() -> bool:
    """Whether torchrun, if it started this process, started it as the one that writes files."""
    return os.environ.get("RANK", "0") == "0"


def processes(device: torch.device) -> Processes:
    """The group of this run: an initialised default group, torchrun's, or this process alone.

    torchrun's becomes the default group and stays it: a process that trains several networks would
    wait for ever on the third group that it makes of one launch.
    """
    if not (dist.is_available() and dist.is_initialized()):
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
            return Processes()
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return Processes(dist.get_rank(), dist.get_world_size())


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
