"""How long whole commands take, from start to end: `repsim-fast --help`, and comparisons.

    python benchmarks/commands.py [--rounds 5] [--record]

Each is a process of its own, as people start it: `import torch` beside them is what none that
computes can do without. `compare` is of 2 to 30 untrained ResNet-14 (47 layers) on the digits that
come with the package, report and pictures included; its result is held against `compare` in Python
first. Modules are compiled once before (PYTHONDONTWRITEBYTECODE is ignored).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np
from timing import machine, machine_name, write_json

from repsim_fast import compare
from repsim_fast import load as load_result
from repsim_fast.data import load
from repsim_fast.models import build, load_checkpoint, save_checkpoint

KIND = {"name": "resnet-14", "num_classes": 10, "in_channels": 1}
NUMBERS = (2, 4, 8, 30)
TARGETS = {"--help": 0.3, "compare 8": 5.0, "compare 30": 20.0}  # seconds
LARGEST_REPORT = 5e6  # bytes, of up to 8 models
COMMAND = [sys.executable, "-m", "repsim_fast"]


class Taken(NamedTuple):
    """Seconds of a process: on the clock, and on processors."""

    wall: float
    processor: float


def run(command: Sequence[str]) -> Taken:
    """Raises RuntimeError with what the command says if it fails."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    before, start = os.times(), perf_counter()
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall, after = perf_counter() - start, os.times()
    if done.returncode:
        raise RuntimeError(f"{' '.join(command[:4])} ...: {done.stderr[-500:]}")
    spent = after.children_user + after.children_system
    return Taken(wall, spent - before.children_user - before.children_system)


def checkpoints(folder: Path, number: int) -> list[Path]:
    """Files of untrained networks."""
    paths = [folder / f"net{seed:02}.safetensors" for seed in range(number)]
    for seed, path in enumerate(paths):
        model = build(**KIND, seed=seed)
        save_checkpoint(path, model, **KIND, epochs=0, history=[])
    return paths


def check(paths: Sequence[Path], out: Path) -> float:
    """Largest difference of the command's values from those of Python; raises AssertionError."""
    found = load_result(out)
    models = {path.stem: load_checkpoint(path)[0] for path in paths}
    want = compare(models, load("digits", split="test"))
    error = float(np.abs(found.value - want.value).max())
    assert error < 1e-9, error
    size = (out / "report.html").stat().st_size
    assert size < LARGEST_REPORT or len(paths) > 8, size
    return error


def row(case: str, times: Sequence[Taken], **more: float) -> dict[str, object]:
    low, middle, high = statistics.quantiles([one.wall for one in times], n=4)
    processor = statistics.median(one.processor for one in times)
    target = {"target_s": TARGETS[case]} if case in TARGETS else {}
    return {
        "case": case, "median_s": middle, "low_s": low, "high_s": high, "processor_s": processor,
        "rounds": len(times), **target, **more,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = checkpoints(Path(folder), max(NUMBERS))
        cases = {
            "import torch": [sys.executable, "-c", "import torch"],
            "--help": [*COMMAND, "--help"],
        }
        errors: dict[str, dict[str, float]] = {}
        for number in NUMBERS:
            out = Path(folder, f"out{number}")
            files = map(str, paths[:number])
            case = f"compare {number}"
            cases[case] = [*COMMAND, "compare", *files, "--data", "digits", "--out", str(out)]
            run(cases[case])
            size = (out / "report.html").stat().st_size
            errors[case] = {"largest_error": check(paths[:number], out), "report_bytes": size}
        times: dict[str, list[Taken]] = {case: [] for case in cases}
        for _ in range(arguments.rounds):
            for case, command in cases.items():
                times[case].append(run(command))
    rows = [row(case, taken, **errors.get(case, {})) for case, taken in times.items()]
    for one in rows:
        print("  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{v}" for k, v in one.items()))
    if arguments.record:
        path = Path(__file__).parent / "results" / machine_name() / "commands.json"
        write_json(path, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
