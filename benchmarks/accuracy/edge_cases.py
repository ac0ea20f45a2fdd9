"""Edge cases of measures, before and after: refusals without reason, numbers made of rounding,
precision lost in silence.

    python benchmarks/accuracy/edge_cases.py --before CHECKOUT \
        --out benchmarks/results/accuracy/edge_cases.json
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor
from versions import compare_versions  # before repsim_fast: it finds the version

from repsim_fast import similarity
from repsim_fast.similarity import bootstrap, grid


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def related(n: int, p: int, q: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    x = normal(n, p, seed=1)
    y = x @ normal(p, q, seed=2) / math.sqrt(p) + 0.5 * normal(n, q, seed=3)
    return x.to(dtype), y.to(dtype)


def collinear(order: int) -> Tensor:
    """RSA of samples that are multiples of one pattern, its features in some order."""
    pattern, sizes = normal(50, seed=4), normal(30, 1, seed=5).abs() + 0.1
    features = torch.randperm(50, generator=torch.Generator().manual_seed(order))
    return similarity.rsa((sizes * pattern)[:, features], normal(30, 8, seed=6))


def under_autocast(name: str) -> Tensor:
    x, y = related(500, 40, 30, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        return grid(name, [x], [y])[0, 0]


def without_autocast(name: str) -> float:
    x, y = related(500, 40, 30, torch.float32)
    return float(grid(name, [x.double()], [y.double()])[0, 0])


AUTOCAST = ("cca", "svcca", "procrustes_similarity", "linear_regression", "mutual_knn", "cka_rbf")
CASES = {
    "shape_distance, alpha 0.5, 30 samples, 50 and 80 features": lambda: similarity.shape_distance(
        *related(30, 50, 80), alpha=0.5
    ),
    **{
        f"rsa of collinear samples, features in order {k}": functools.partial(collinear, k)
        for k in (1, 2, 3)
    },
    **{f"{name} under autocast": functools.partial(under_autocast, name) for name in AUTOCAST},
    "bootstrap of 4 samples, 300 resamples: standard error of cka": lambda: (
        bootstrap(
            "cka", [normal(4, 5, seed=7)], [normal(4, 5, seed=8)], resamples=300
        ).standard_error
    ),
    "rsa of squared Euclidean distances, pearson": lambda: similarity.rsa(
        *related(40, 10, 12), rdm="sqeuclidean", comparison="pearson"
    ),
    "svcca of 30 samples, 20 and 20 features": lambda: similarity.svcca(
        normal(30, 20, seed=9), normal(30, 20, seed=10)
    ),
    "rsa by spearman of features that require a gradient": lambda: similarity.rsa(
        related(30, 5, 6)[0].requires_grad_(), related(30, 5, 6)[1]
    ),
}


def shape_distance() -> float:
    from python_tests.support import definitions

    return definitions.shape_distance(*(m.numpy() for m in related(30, 50, 80)), alpha=0.5)


def squared_euclidean() -> float:
    from python_tests.support import definitions

    x, y = (m.numpy() for m in related(40, 10, 12))
    return definitions.rsa(x, y, "sqeuclidean", "pearson")


TRUTH = {
    "shape_distance, alpha 0.5, 30 samples, 50 and 80 features": shape_distance,
    **{f"{name} under autocast": functools.partial(without_autocast, name) for name in AUTOCAST},
    "rsa of squared Euclidean distances, pearson": squared_euclidean,
}

if __name__ == "__main__":
    compare_versions(CASES, TRUTH)
