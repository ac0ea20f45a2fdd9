"""Unrelated representations with many features for their samples: values, warnings, chance levels.

    python benchmarks/accuracy/few_samples.py --before CHECKOUT \
        --out benchmarks/results/accuracy/few_samples.json

Independent Gaussians; the truth is 0, but for the error that least squares makes. Cross-validated
forms and calibrated values are new, and so errors before. Levels by permutation have as truth the
mean over independent data sets.
"""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor
from versions import compare_versions  # before repsim_fast: it finds the version

from repsim_fast import similarity
from repsim_fast.similarity import get_measure, grid

SIZES = [(1000, 50, 50), (1000, 100, 100), (1000, 400, 400), (10_000, 512, 512)]
PLAIN = [
    "cca",
    "svcca",
    "pwcca",
    "linear_regression",
    "procrustes_similarity",
    "rv_coefficient",
    "distance_correlation",
]
HELD_OUT = ["cross_validated_cca", "cross_validated_svcca", "cross_validated_pwcca"]
HELD_OUT += ["linear_predictivity", "ridge_predictivity", "bias_corrected_distance_correlation"]


@functools.cache
def gaussians(n: int, p: int, q: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, width, generator=generator) for width in (p, q))


def value(name: str, size: tuple[int, int, int]) -> Tensor:
    return new(name)(*gaussians(*size))


def new(name: str) -> object:
    """A function that the version may not have yet."""
    if not hasattr(similarity, name):
        raise ValueError(f"no {name}")
    return getattr(similarity, name)


def chance(name: str, size: tuple[int, int, int]) -> Tensor:
    x, y = gaussians(*size)
    return new("chance_level")(name, [x], [y], permutations=20)


def calibrated(name: str, size: tuple[int, int, int]) -> Tensor:
    x, y = gaussians(*size)
    return new("calibrate")(name, [x], [y], permutations=99).calibrated


def expected(name: str, size: tuple[int, int, int]) -> float:
    """Least squares of q noisy features on m samples predict worse than the mean, by q/(m - q - 1)
    of the variance."""
    n, _, q = size
    fitted = n - n // 5
    return -q / (fitted - q - 1) if name == "linear_predictivity" else 0.0


def level(name: str, size: tuple[int, int, int]) -> float:
    """Mean over data sets of their own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = [grid(name, *([m] for m in gaussians(*size, seed))) for seed in range(1, 9)]
    return float(torch.stack(values).mean())


CASES, TRUTH = {}, {}
for size in SIZES:
    text = "n = {}, p = {}, q = {}".format(*size)
    small = size[0] == 1000
    for name in PLAIN + HELD_OUT if small else PLAIN[:5]:
        CASES[f"{text}: {name}"] = functools.partial(value, name, size)
        TRUTH[f"{text}: {name}"] = functools.partial(expected, name, size)
    for name in PLAIN if small else ():
        CASES[f"{text}: chance level of {name}"] = functools.partial(chance, name, size)
        TRUTH[f"{text}: chance level of {name}"] = functools.partial(level, name, size)
        CASES[f"{text}: calibrated {name}"] = functools.partial(calibrated, name, size)
        TRUTH[f"{text}: calibrated {name}"] = lambda: 0.0
TIMED = {
    f"time, 1000 x 100 and 100: 99 permutations of {name}": functools.partial(
        lambda name: similarity.permutation_test(
            get_measure(name), *gaussians(1000, 100, 100), permutations=99
        ),
        name,
    )
    for name in ("cca", "cka", "procrustes_similarity", "mutual_knn")
}

if __name__ == "__main__":
    compare_versions(CASES, TRUTH, TIMED)
