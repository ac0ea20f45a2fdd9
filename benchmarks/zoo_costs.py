"""What two processes gain over one, and what a recording costs beside a comparison of its model.

    python benchmarks/zoo_costs.py [--images 1024] [--rounds 11] [--processes 2] [--record]

Two ratios of wall time, each of pairs that are run one right after the other, in turn first: one
process to several at `compare` of two ResNet-20 (target: 1.7 of two processes on two cores), and
`record` of one ResNet-20 less the disk to `compare` of it (target: 1.05). The disk is what writing
and syncing as many bytes takes, in files of the same sizes. Results are held against one another
before anything is timed. Each process has one thread; those with nothing to do wait in the kernel.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing
from timing import machine, machine_name, write_json

from repsim_fast import SimilarityResult, compare, record
from repsim_fast.models import build

BATCH = 64
OPTIONS = {"batch_size": BATCH, "layers": ["*conv*", "*relu*"]}
TARGETS = {"processes": 1.7, "recording": 1.05}


def network(seed: int) -> torch.nn.Module:
    return build("resnet-20", num_classes=10, in_channels=3, seed=seed).eval()


def data(images: int) -> torch.Tensor:
    return torch.rand(images, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def seconds(work: Callable[[], object]) -> float:
    start = perf_counter()
    work()
    return perf_counter() - start


def paired(one: Callable[[], float], other: Callable[[], float], rounds: int) -> np.ndarray:
    """(rounds, 2) seconds of both, in turn first, after one of each that does not count."""
    one(), other()
    found = []
    for number in range(rounds):
        both = {f: f() for f in ((one, other) if number % 2 else (other, one))}
        found.append([both[one], both[other]])
    return np.array(found)


def written(sizes: Mapping[str, int], folder: Path) -> None:
    """Files of these sizes, on the disk."""
    folder.mkdir()
    for name, size in sizes.items():
        with (folder / name).open("wb") as file:
            file.write(bytes(size))
            os.fsync(file.fileno())


def row(case: str, times: np.ndarray, ratios: np.ndarray, **more: float) -> dict[str, object]:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "case": case, "first_s": float(np.median(times[:, 0])),
        "second_s": float(np.median(times[:, 1])), "ratio": middle, "low": low, "high": high,
        "rounds": len(ratios), **more,
    }  # fmt: skip


def sharing(images: int, rounds: int) -> dict[str, object]:
    """One process to all of the group; what the first one returns counts."""
    models, x = {"a": network(0), "b": network(1)}, data(images)
    group, size, first = dist.group.WORLD, dist.get_world_size(), dist.get_rank() == 0
    shared = compare(models, x, process_group=group, **OPTIONS)
    error = float(np.abs(shared.value - compare(models, x, **OPTIONS).value).max())
    assert error < 1e-12, error

    def alone() -> float:
        dist.barrier()
        taken = seconds(partial(compare, models, x, **OPTIONS)) if first else 0.0
        dist.barrier()
        return taken

    def together() -> float:
        dist.barrier()
        return seconds(partial(compare, models, x, process_group=group, **OPTIONS))

    times = paired(alone, together, rounds)
    case = f"two ResNet-20, {images} images, one process to {size}"
    more = {"target": TARGETS["processes"], "largest_error": error}
    return row(case, times, times[:, 0] / times[:, 1].clip(1e-9), **more)


def recording(images: int, rounds: int) -> dict[str, object]:
    """A recording less the disk to a comparison."""
    model, x, folder = network(0), data(images), Path(tempfile.mkdtemp())
    compared = partial(compare, [model], x, names=["m"], **OPTIONS)
    recorded = partial(record, model, x, name="m", **OPTIONS)
    made = recorded(folder / "m")
    assert np.array_equal(SimilarityResult.from_recordings([made]).value, compared().value)
    sizes = {path.name: path.stat().st_size for path in made.path.glob("*.safetensors")}
    disk: list[float] = []

    def kept() -> float:
        taken = seconds(partial(recorded, folder / "again"))
        shutil.rmtree(folder / "again")
        disk.append(seconds(partial(written, sizes, folder / "disk")))
        shutil.rmtree(folder / "disk")
        return taken

    times = paired(kept, partial(seconds, compared), rounds)
    shutil.rmtree(folder)
    without = times[:, 0] - np.array(disk[1:])
    more = {"target": TARGETS["recording"], "disk_s": statistics.median(disk)}
    case = f"ResNet-20, {images} images, recording less the disk to compare"
    return row(case, times, without / times[:, 1], mebibytes=sum(sizes.values()) / 2**20, **more)


def _process(rank: int, arguments: argparse.Namespace, meeting: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{meeting}", rank=rank, world_size=arguments.processes
    )
    rows = [sharing(arguments.images, arguments.rounds)]
    dist.destroy_process_group()
    if rank:
        return
    rows.append(recording(arguments.images, arguments.rounds))
    for one in rows:
        print("  ".join(f"{k}={v:.4g}" if isinstance(v, float) else f"{v}" for k, v in one.items()))
    if arguments.record:
        path = Path(__file__).parent / "results" / machine_name() / "zoo_costs.json"
        write_json(path, {"machine": machine(), "rows": rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        meeting = f"{folder}/meeting"
        torch.multiprocessing.spawn(_process, (arguments, meeting), nprocs=arguments.processes)


if __name__ == "__main__":
    main()
