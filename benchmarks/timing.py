"""Times of alternatives measured side by side, and what is needed to read them later."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

import repsim_fast
from repsim_fast.ops import Precision, products_in

Row = dict[str, Any]

timed = True
"""False in a run that checks correctness alone."""


def tolerance(precision: Precision | None) -> float:
    """What a CKA of float32 features may be off, by what its products are taken in here (see
    docs/accuracy.md)."""
    products = products_in(torch.empty(0), precision)
    return {"float32": 1e-5, "int16": 1e-4, "bfloat16": 2e-3}[products]


class Elapsed(float):
    """Seconds that a function took by a clock of its own."""


@dataclass(frozen=True)
class Timing:
    """Seconds of one alternative: the median and the quartiles around it."""

    median: float
    low: float
    high: float

    def row(self) -> dict[str, float]:
        return {"median_s": self.median, "low_s": self.low, "high_s": self.high}


def side_by_side(
    alternatives: dict[str, Callable[[], Any]],
    *,
    rounds: int = 7,
    warmup: int = 2,
    clock: Callable[[], float] = perf_counter,
) -> dict[str, Timing]:
    """Times alternatives in turn, round by round, so that a change of the machine's load hits all
    of them; synchronises the GPU when there is one. Once each where only correctness is checked.
    A function that returns :class:`Elapsed` took so long."""
    if not timed:
        rounds, warmup = 1, 0
    for _ in range(warmup):
        for function in alternatives.values():
            function()
    seconds: dict[str, list[float]] = {name: [] for name in alternatives}
    for _ in range(rounds):
        for name, function in alternatives.items():
            _synchronize()
            start = clock()
            returned = function()
            _synchronize()
            took = clock() - start
            seconds[name].append(returned if isinstance(returned, Elapsed) else took)
    return {name: _summary(times) for name, times in seconds.items()}


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _summary(times: list[float]) -> Timing:
    low, median, high = statistics.quantiles(times, n=4) if len(times) > 1 else [times[0]] * 3
    return Timing(median, low, high)


def machine() -> dict[str, Any]:
    """Where and with what a figure was measured."""
    info: dict[str, Any] = {
        "processor": _processor(),
        "threads": torch.get_num_threads(),
        "simd_level": repsim_fast.build_info()["simd_level"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "repsim_fast": repsim_fast.__version__,
        "commit": _commit(),
    }
    if torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
        info["cuda"] = torch.version.cuda
    return info


def write_json(path: Path, content: Any) -> None:
    """Write all of it or nothing, and the folder if it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".unfinished")
    unfinished.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(unfinished, path)


def merged(held: dict[str, Any], where: dict[str, Any], rows: list[Row]) -> dict[str, Any]:
    """Results file of a run that knows of an earlier one: rows replace those of the same case.

    The others stay as they are. Where they were not measured on this machine, with these versions
    at this commit, they say so themselves, in an entry "machine" like that of the file.
    """
    fresh = {row["case"]: row for row in rows}
    kept = {
        row["case"]: {**row, "machine": row.get("machine", held["machine"])} for row in held["rows"]
    }
    for row in kept.values():
        if row["machine"] == where:
            del row["machine"]
    return {"machine": where, "rows": list({**kept, **fresh}.values())}


def machine_name() -> str:
    """Folder of the results: the GPU, or model of the processor and threads."""
    if torch.cuda.is_available():
        name = torch.cuda.get_device_name()
    else:
        name = f"{_processor()} {torch.get_num_threads()} threads"
    return "-".join("".join(c if c.isalnum() else " " for c in name.lower()).split())


def _processor() -> str:
    try:
        return processor_of(Path("/proc/cpuinfo").read_text())
    except OSError:
        return platform.processor() or platform.machine()


def processor_of(cpuinfo: str) -> str:
    """Name, family and model: virtual machines call every generation "AMD EPYC" or "Xeon"."""
    pairs = (line.partition(":") for line in cpuinfo.partition("\n\n")[0].splitlines())
    held = {name.strip(): value.strip() for name, _, value in pairs}
    numbers = {"family": held.get("cpu family"), "model": held.get("model")}
    known = [f"{name} {number}" for name, number in numbers.items() if number]
    return " ".join([held.get("model name", "cpu"), *known])


def _commit() -> str:
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            capture_output=True,
            text=True,
            cwd=Path(__file__).parent,
        )
    except OSError:  # no git
        return "unknown"
    return run.stdout.strip() or "unknown"
