"""50 x 50 layers of two models, 10,000 samples, up to 2048 features: time and memory.

    python benchmarks/large_grid.py [--measures svcca cca] [--memory-gib 2] [--layers 50] [--record]

Spectra decay as those of trained networks do. Features go to a store and factorisations to mapped
files where they exceed the budget. Three cells are checked against float64 before times are given.
"""

from __future__ import annotations

import argparse
import resource
from pathlib import Path
from time import perf_counter

import torch
from memory import peak_memory
from timing import machine, machine_name, write_json
from torch import Tensor

from repsim_fast.similarity import FeatureStore, get_measure
from repsim_fast.similarity.base.prepared import Prepared
from repsim_fast.similarity.base.store import GIB, Spill
from repsim_fast.similarity.grid import between

WIDTHS = (64, 128, 256, 512, 1024, 2048)
BATCH = 1000


def fill(store: FeatureStore, layers: int, samples: int) -> None:
    """Two models of as many layers, of all widths, made of one source so that they are related."""
    generator = torch.Generator().manual_seed(0)
    source = 256
    maps = {}
    for model in "ab":
        for layer in range(layers):
            width = WIDTHS[layer % len(WIDTHS)]
            decay = torch.arange(1, source + 1).pow(-1.0)[:, None]
            maps[model, layer] = torch.randn(source, width, generator=generator) * decay
    for _ in range(0, samples, BATCH):
        x = torch.randn(BATCH, source, generator=generator)
        for key, weights in maps.items():
            noise = torch.randn(BATCH, weights.shape[1], generator=generator)
            store.append(key, (x @ weights + 0.1 * noise + 0.3).relu_(), copy=False)


def reference(name: str, x: Tensor, y: Tensor) -> float:
    """Float64, plain."""
    u, s, v, t = (
        part
        for m in (x.double(), y.double())
        for part in torch.linalg.svd(m - m.mean(0), full_matrices=False)[:2]
    )
    if name == "procrustes_similarity":
        return float(torch.linalg.svdvals((u * s).T @ (v * t)).sum() / (s.norm() * t.norm()))
    if name == "svcca":
        k, m = (int((a.square().cumsum(0) / a.square().sum() < 0.99).sum()) + 1 for a in (s, t))
        u, v = u[:, :k], v[:, :m]
    return float(torch.linalg.svdvals(u.T @ v).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measures", nargs="+", default=["svcca", "procrustes_similarity", "cca"])
    parser.add_argument("--layers", type=int, default=50)
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--memory-gib", type=float, default=2.0)
    parser.add_argument("--record", action="store_true")
    arguments = parser.parse_args()
    budget = int(arguments.memory_gib * GIB)
    rows = []
    with FeatureStore(memory=budget) as store:
        fill(store, arguments.layers, arguments.samples)
        print(
            f"features: {store.in_memory / GIB:.2f} GiB in memory, "
            f"{store.in_files / GIB:.2f} GiB in files",
            flush=True,
        )
        for name in arguments.measures:
            measure, spill = get_measure(name), Spill(budget)
            with peak_memory() as peak:
                start = perf_counter()
                views = {
                    key: spill.keep(measure.view(Prepared(store.matrix(key))))
                    for key in store.keys()  # noqa: SIM118  (a method of the store)
                }
                middle = perf_counter()
                values = between(
                    measure,
                    [view for (model, _), view in views.items() if model == "a"],
                    [view for (model, _), view in views.items() if model == "b"],
                )
                end = perf_counter()
            del views
            spill.close()
            for i, j in ((0, 0), (2, 1), (1, 3 % arguments.layers)):
                truth = reference(name, store.matrix(("a", i)), store.matrix(("b", j)))
                assert abs(float(values[i, j]) - truth) < 1e-5, (name, i, j, values[i, j], truth)
            rows.append(
                {
                    "case": f"{name} {arguments.layers}x{arguments.layers}, n {arguments.samples}",
                    "seconds": end - start,
                    "seconds_per_layer": (middle - start) / len(store.keys()),
                    "seconds_per_pair": (end - middle) / values.numel(),
                    "peak_anonymous_gib": peak[0],
                    "peak_resident_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20,
                }
            )
            print(
                "  ".join(
                    f"{k}={v:.4g}" if isinstance(v, float) else v for k, v in rows[-1].items()
                ),
                flush=True,
            )
            if arguments.record:  # after each, so that what is known is kept
                path = Path(__file__).parent / "results" / machine_name() / "large_grid.json"
                write_json(path, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
