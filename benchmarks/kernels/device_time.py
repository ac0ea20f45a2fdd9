"""Device times, and the two ceilings that they are compared with, measured in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch

# Inputs rotate, so that none is found in the cache: together several times its size.
ROTATION = 3


def milliseconds(run: Callable[[int], object], repeats: int = 15) -> float:
    """Median device time of run(i), i = 0, 1, ..."""
    for i in range(3):
        run(i)
    times = []
    for i in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run(i)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


def copy_bytes_per_ms() -> float:
    """Bytes read and written by a device-to-device copy of 4 GiB."""
    source = torch.randn(1 << 30, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.nbytes / milliseconds(lambda _: target.copy_(source))


def product_operations_per_ms(precision: str) -> float:
    """Operations of torch's matrix product of side 8192: "float32", "tf32" or "bfloat16"."""
    side = 8192
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    a, b = (torch.randn(side, side, device="cuda").to(dtype) for _ in range(2))
    time = milliseconds(lambda _: a @ b)
    torch.backends.cuda.matmul.allow_tf32 = allowed
    return 2 * side**3 / time
