"""Device times, and the ceilings that they are compared with, measured in the same run."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

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


@dataclass(frozen=True)
class Ceilings:
    """What this device reaches with nothing else to do: a copy, and torch's matrix product."""

    copy_bytes_per_ms: float
    operations_per_ms: dict[str, float]  # by precision

    @classmethod
    def measured(cls, *precisions: str) -> Ceilings:
        rates = {name: product_operations_per_ms(name) for name in precisions}
        found = cls(copy_bytes_per_ms(), rates)
        print(f"copy {found.copy_bytes_per_ms / 1e6:.0f} GB/s; products in TFLOP/s:", end=" ")
        print({name: round(rate / 1e9) for name, rate in rates.items()}, flush=True)
        return found

    def figures(
        self, ms: float, *, nbytes: float, operations: float = 0, precision: str = "float32"
    ) -> dict[str, Any]:
        """Achieved rates, and the fraction of the larger of the two bounds."""
        bound = nbytes / self.copy_bytes_per_ms
        if operations:
            bound = max(bound, operations / self.operations_per_ms[precision])
        return {
            "ms": ms,
            "gb_per_s": nbytes / ms / 1e6,
            "tflop_per_s": operations / ms / 1e9,
            "of_copy": nbytes / ms / self.copy_bytes_per_ms,
            "bound_ms": bound,
            "of_bound": bound / ms,
        }


def shown(row: dict[str, Any]) -> str:
    """The figures of a row as text; what has not been timed says so."""
    wrong = "" if row["right"] else "  WRONG"
    if "ms" not in row:
        return f"not measured yet{wrong}"
    return (
        f"{row['ms']:9.4f} ms {row['gb_per_s']:7.0f} GB/s {row['tflop_per_s']:6.1f} TFLOP/s"
        f" {row['of_copy']:5.0%} of copy {row['of_bound']:5.0%} of bound{wrong}"
    )
