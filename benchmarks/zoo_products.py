"""Thirty recordings of a hundred layers, all pairs of 3,000 layers: time, memory and the bound.

    python benchmarks/zoo_products.py [--recordings 30] [--layers 100] [--samples 2048] [--record]

The bound is one symmetric product a batch, layers x length of a packed Gram, at the rate at which
`torch.matmul` takes the same product in float32 (twice the operations: it knows of no symmetry),
measured before and after each comparison. Both are processor time, all threads together, for the
machine may have other work; the time of the clock is given beside. Cells are checked against
float64. Each round is a process of its own, so that peak memory is that of one comparison; it
compares twice, since the first time the system has to find and clear a gigabyte, in a virtual
machine perhaps with its host ("again" is the second).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from memory import peak_memory
from timing import machine, machine_name, write_json

from repsim_fast import Recording, SimilarityResult, record

BATCH, WIDTH = 128, 16


def network(layers: int, seed: int) -> torch.nn.Module:
    """Linear layers that keep the size of what goes through them."""
    torch.manual_seed(seed)
    made = [torch.nn.Linear(WIDTH, WIDTH) for _ in range(layers)]
    for layer in made:
        torch.nn.init.orthogonal_(layer.weight)
        layer.weight.data += 0.05 * torch.randn(WIDTH, WIDTH)
    return torch.nn.Sequential(*made).eval()


def write(folder: Path, recordings: int, layers: int, samples: int) -> None:
    """Record the networks, but for those that are there."""
    data = torch.randn(samples, WIDTH, generator=torch.Generator().manual_seed(0))
    for seed in range(recordings):
        record(network(layers, seed), data, folder / f"net{seed:02d}", batch_size=BATCH)


def opened(folder: Path) -> list[Recording]:
    return [Recording.open(path) for path in sorted(folder.iterdir())]


def reference(folder: Path, one: tuple[int, int], other: tuple[int, int]) -> float:
    """CKA of two layers, each by recording and number, in float64."""
    own = {}
    for recording, layer in {one, other}:
        made = opened(folder)[recording]
        own[recording, layer] = [made.grams(*found)[layer].double() for found in made.parts()]
    x, y = own[one], own[other]
    cross, mine, theirs = (
        sum(float(a @ b) for a, b in zip(p, q, strict=True)) for p, q in ((x, y), (x, x), (y, y))
    )
    return cross / (mine * theirs) ** 0.5


def check(folder: Path, result: SimilarityResult, layers: int) -> float:
    """Largest error of some cells."""
    last = len(result.models) - 1
    cells = [((0, 0), (last, layers - 1)), ((1, layers // 2), (last, 0)), ((2, 3), (2, layers - 1))]
    first = [0, *np.cumsum([len(own) for own in result.layers])]
    errors = [
        abs(result.value[first[a[0]] + a[1], first[b[0]] + b[1]] - reference(folder, a, b))
        for a, b in cells
    ]
    assert max(errors) < 1e-6, errors
    return float(max(errors))


def once(folder: Path, layers: int) -> dict[str, float]:
    """One comparison, with the product's rate just before and after it."""
    batches = len(opened(folder)[0].batches)
    rows = sum(len(one.layers) for one in opened(folder))
    before = product_seconds(rows)
    with peak_memory() as peak:
        start, used, system = perf_counter(), process_time(), os.times().system
        result = SimilarityResult.from_recordings(opened(folder))
        seconds, used = perf_counter() - start, process_time() - used
        system = os.times().system - system
    del result
    again = process_time()
    result = SimilarityResult.from_recordings(opened(folder))
    again = process_time() - again
    matmul = statistics.mean([before, product_seconds(rows)])
    return {
        "seconds": seconds,
        "processor_seconds": used,
        "of_these_system_s": system,
        "again_processor_seconds": again,
        "matmul_s": matmul,
        "bound_s": batches * matmul * (rows + 1) / (2 * rows),
        "peak_anonymous_gib": peak[0],
        "result_gib": sum(a.nbytes for a in vars(result).values() if isinstance(a, np.ndarray))
        / 2**30,
        "largest_error": check(folder, result, layers),
    }


def product_seconds(rows: int) -> float:
    """Processor time of a product of a batch's Grams by `torch.matmul`, the best of three."""
    grams = torch.randn(rows, BATCH * (BATCH - 1) // 2)
    out = grams.new_empty(rows, rows)
    times = [process_time()]
    for _ in range(4):
        torch.matmul(grams, grams.T, out=out)
        times.append(process_time())
    return min(after - before for before, after in list(pairwise(times))[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--recordings", type=int, default=30)
    parser.add_argument("--layers", type=int, default=100)
    parser.add_argument("--samples", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument(
        "--folder", type=Path, help="keep the recordings here, and take those there"
    )
    parser.add_argument("--once", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    if arguments.once is not None:
        torch.set_num_threads(arguments.threads[0])
        print(json.dumps(once(arguments.once, arguments.layers)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.folder or Path(temporary)
        folder.mkdir(exist_ok=True)
        write(folder, arguments.recordings, arguments.layers, arguments.samples)
        if (there := len(opened(folder))) != arguments.recordings:
            parser.error(f"--folder: expected {arguments.recordings} recordings, got {there}")
        found: dict[int, list[dict[str, float]]] = {count: [] for count in arguments.threads}
        for _ in range(arguments.rounds):
            for threads, rows in found.items():
                rows.append(_in_a_process(folder, threads, arguments.layers))
    rows = [_row(arguments, threads, rows) for threads, rows in found.items()]
    for row in rows:
        print("  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{v}" for k, v in row.items()))
    if arguments.record:
        torch.set_num_threads(1)
        path = Path(__file__).parent / "results" / machine_name() / "zoo_products.json"
        write_json(path, {"machine": machine(), "rows": rows})


def _in_a_process(folder: Path, threads: int, layers: int) -> dict[str, float]:
    words = ["--once", folder, "--threads", threads, "--layers", layers]
    command = [sys.executable, __file__, *map(str, words)]
    run = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(run.stdout.splitlines()[-1])


def _row(arguments: argparse.Namespace, threads: int, rounds: list[dict[str, float]]) -> dict:
    middle = {name: statistics.median(row[name] for row in rounds) for name in rounds[0]}
    layers = arguments.recordings * arguments.layers
    flops = layers * (layers + 1) * BATCH * (BATCH - 1) // 2
    return {
        "case": f"{layers} layers of {arguments.recordings} recordings, "
        f"{arguments.samples} samples in batches of {BATCH}, {threads} threads",
        **middle,
        **{
            f"{name}fraction_of_bound": statistics.median(
                row["bound_s"] / row[f"{name}processor_seconds"] for row in rounds
            )
            for name in ("", "again_")
        },
        "gflop": flops * (arguments.samples // BATCH) / 1e9,
        "rounds": len(rounds),
    }


if __name__ == "__main__":
    main()
