"""What processes that work on one task, such as those that torchrun starts, tell one another.

In training, gradients are averaged by one reduction after the backward pass instead of by
``DistributedDataParallel``: that wrapper cannot follow the methods here, which call the model
several times before a backward pass or differentiate twice. What is lost is the overlap of
communication with the backward pass.
"""

from __future__ import annotations

import atexit
import os
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Value = TypeVar("Value")


@dataclass(frozen=True)
class Processes:
    """The group this process belongs to; alone it has rank 0 of 1 and communicates nothing.

    Attributes:
        rank: The number of this process in the group.
        size: Processes in the group.
        group: The group; None for torch's default one.
    """

    rank: int = 0
    size: int = 1
    group: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes files and shows progress."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where tensors must be that are sent: the CPU, where the group's back end takes them."""
        if self.size == 1 or "cpu:" in str(dist.get_backend_config(self.group)):
            return torch.device("cpu")
        return torch.device("cuda", torch.cuda.current_device())

    def share(self, x: Tensor) -> Tensor:
        """This process's part of a batch's rows; sizes differ by at most one."""
        return x[self.rank :: self.size]

    def sum(self, x: Tensor) -> Tensor:
        """Sum of ``x`` over the processes, in place."""
        if self.size > 1:
            dist.all_reduce(x, group=self.group)
        return x

    def largest(self, x: Tensor) -> Tensor:
        """Largest ``x`` of the processes, element by element, in place."""
        if self.size > 1:
            dist.all_reduce(x, dist.ReduceOp.MAX, group=self.group)
        return x

    def gather(self, value: Value) -> list[Value]:
        """What each process has, in the order of their ranks."""
        if self.size == 1:
            return [value]
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, value, group=self.group)
        return found

    def gather_in_first(self, value: Value) -> list[Value]:
        """What each process has, in the order of their ranks; nothing but in the first process."""
        if self.size == 1:
            return [value]
        found: list[Any] | None = [None] * self.size if self.first else None
        dist.gather_object(value, found, group=self.group, group_dst=0)
        return found or []

    def from_first(self, value: Value) -> Value:
        """What the first process has."""
        if self.size == 1:
            return value
        holder = [value]
        dist.broadcast_object_list(holder, group=self.group, group_src=0)
        return holder[0]

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


def members(group: dist.ProcessGroup | None) -> Processes:
    """This process among those of a group of torch.distributed; None: alone.

    Raises:
        TypeError: It is no process group.
        ValueError: This process is not in it.
    """
    if group is None:
        return Processes()
    if not isinstance(group, dist.ProcessGroup):
        raise TypeError(
            "process_group must be a group of torch.distributed, such as "
            f"torch.distributed.group.WORLD, or None, got {group!r}"
        )
    rank = dist.get_rank(group)
    if rank < 0:
        raise ValueError("process_group: expected a group that this process is in, got another")
    return Processes(rank, dist.get_world_size(group), group)


def processes(device: torch.device) -> Processes:
    """The group of this run: an initialised default group, torchrun's, or this process alone.

    torchrun's becomes the default group and stays it: a process that trains several networks would
    wait for ever on the third group that it makes of one launch.
    """
    if not (dist.is_available() and dist.is_initialized()):
        if int(os.environ.get("WORLD_SIZE", "1")) < 2 or "RANK" not in os.environ:
            return Processes()
        # What is no tensor, and tensors on the CPU, go by gloo.
        dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
        atexit.register(_leave)
    return members(dist.group.WORLD)


def _leave() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()
