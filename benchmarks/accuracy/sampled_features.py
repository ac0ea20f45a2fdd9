"""CKA of few features of two populations, with and without the correction for that.

    python benchmarks/accuracy/sampled_features.py --before CHECKOUT \
        --out benchmarks/results/accuracy/sampled_features.json

Two populations of 2,000 units see 24 latent variables of 400 samples. Values are means over 200
random samples of units; the truth is CKA of the populations.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from versions import compare_versions  # before repsim_fast: it finds the version

from python_tests.support.written_out import debiased_cka
from repsim_fast import similarity

UNITS, DRAWS = (10, 30, 100, 300, 1000), 200


@functools.cache
def populations() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    latent = torch.randn(400, 24, generator=generator)
    return tuple(latent @ torch.randn(24, 2000, generator=generator) for _ in range(2))


def mean(units: int, corrected: bool) -> float:
    if corrected and not hasattr(similarity, "cka_sampled_features"):
        raise ValueError("no correction")
    generator = torch.Generator().manual_seed(units)
    values = []
    for _ in range(DRAWS):
        x, y = (
            population[:, torch.randperm(2000, generator=generator)[:units]]
            for population in populations()
        )
        value = (
            similarity.cka_sampled_features(x, y, population=2000)
            if corrected
            else similarity.cka(x, y)
        )
        values.append(float(value))
    return sum(values) / DRAWS


def truth() -> float:
    return debiased_cka(*populations())


CASES = {
    f"{units} units of 2,000: {kind}": functools.partial(mean, units, corrected)
    for units in UNITS
    for kind, corrected in (("cka", False), ("cka_sampled_features", True))
}

if __name__ == "__main__":
    compare_versions(CASES, {name: truth for name in CASES})
