"""Measures of neighbours and distances in tight clusters, from float32: before and after.

    python benchmarks/accuracy/tight_clusters.py --before CHECKOUT \
        --out benchmarks/results/accuracy/tight_clusters.json

Ten clusters, and a rotation of them rounded to float32. The truth is the definition in float64, of
the same float32 features. Times are of ordinary features and of clusters of spread 1e-3.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from versions import compare_versions  # before repsim_fast: it finds the version

from repsim_fast.similarity import get_measure, grid, prepare

SPREADS = [1e-1, 1e-2, 1e-3, 1e-4, 1e-5]
MEASURES = {
    "mutual_knn": {},
    "mutual_knn euclidean": {"metric": "euclidean"},
    "jaccard_similarity": {},
    "rank_similarity": {},
    "joint_rank_jaccard": {},
    "second_order_cosine": {},
    "intrinsic_multiscale_distance": {},
    "rsm_norm_difference": {},
}


def normal(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@functools.cache
def clusters(spread: float, n: int = 300, p: int = 64) -> tuple[Tensor, Tensor]:
    x = (normal(10, p, seed=0)[torch.arange(n) % 10] + spread * normal(n, p, seed=1)).float()
    rotation = torch.linalg.qr(normal(p, p, seed=2))[0]
    return x, (x.double() @ rotation).float()


def value(name: str, spread: float) -> Tensor:
    measure = get_measure(name.split()[0], **MEASURES[name])
    return grid(measure, *([x] for x in clusters(spread)))[0, 0]


def truth(name: str, spread: float) -> float:
    from python_tests.support import definitions

    x, y = (m.double().numpy() for m in clusters(spread))
    return definitions.all_definitions()[name.split()[0]](x, y, **MEASURES[name])


CASES = {
    f"ten clusters of spread {spread:g}: {name}": (name, spread)
    for spread in SPREADS
    for name in MEASURES
}
SIZES = [(1000, 64), (2000, 512), (1000, 4096)]
TIMED = {
    f"time, {n} x {p}, {kind}: {name}": (name, n, p, kind)
    for n, p in SIZES
    for kind in ("independent features", "clusters of spread 1e-3")
    for name in ("mutual_knn", "rank_similarity", "cka_rbf", "rsa", "distance_correlation")
}


def view(name: str, n: int, p: int, kind: str) -> object:
    """What a measure does once for a representation."""
    return get_measure(name).view(prepare(timed(n, p, kind)))


@functools.cache
def timed(n: int, p: int, kind: str) -> Tensor:
    return normal(n, p, seed=3).float() if kind[0] == "i" else clusters(1e-3, n, p)[0]


if __name__ == "__main__":
    compare_versions(
        {name: functools.partial(value, *case) for name, case in CASES.items()},
        {name: functools.partial(truth, *case) for name, case in CASES.items()},
        {name: functools.partial(view, *case) for name, case in TIMED.items()},
    )
