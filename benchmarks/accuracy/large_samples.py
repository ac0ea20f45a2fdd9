"""CKA with one sample far larger than the others: every route to it, before and after.

    python benchmarks/accuracy/large_samples.py --before CHECKOUT \
        --out benchmarks/results/accuracy/large_samples.json

Features are float32; the truth is the definition in float64, from U-centred Grams of features less
their medians. Times are of ordinary features: what the safeguard costs where it is not needed, and
of those with the large sample.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn
from versions import compare_versions  # before repsim_fast: it finds the version

from python_tests.support.written_out import debiased_cka
from repsim_fast import compare
from repsim_fast.ops import centered_gram
from repsim_fast.similarity import MinibatchCKA, cka, grid, jackknife, permutation_test

SHAPES = [(512, 4096, 1024), (500, 64, 64), (64, 20_000, 300)]
RATIOS = [1, 10, 500, 1e4, 1e5]


@functools.cache
def features(n: int, p: int, q: int, ratio: float) -> tuple[Tensor, Tensor]:
    """A linear map with noise, the first sample of both times the ratio."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, p, generator=generator)
    mixed = x @ torch.randn(p, q, generator=generator) / p**0.5
    y = mixed + torch.randn(n, q, generator=generator)
    x[0] *= ratio
    y[0] *= ratio
    return x, y


def by_minibatch(x: Tensor, y: Tensor) -> Tensor:
    minibatch = MinibatchCKA()
    minibatch.update(torch.stack([centered_gram(z, packed=True) for z in (x, y)]), n=len(x))
    return minibatch.compute().value[0, 1]


class Half(nn.Module):
    """Passes some columns through a layer."""

    def __init__(self, columns: slice) -> None:
        super().__init__()
        self.columns, self.layer = columns, nn.Identity()

    def forward(self, both: Tensor) -> Tensor:
        return self.layer(both[:, self.columns])


def by_compare(x: Tensor, y: Tensor) -> float:
    p = x.shape[1]
    result = compare(
        [Half(slice(0, p)), Half(slice(p, None))],
        [torch.cat([x, y], dim=1)],
        names=["a", "b"],
        layers=lambda name, _: name == "layer",
    )
    return float(result.between("a", "b").value[0, 0])


ROUTES = {
    "function": cka,
    "grid": lambda x, y: grid("cka", [x], [y])[0, 0],
    "jackknife": lambda x, y: jackknife("cka", [x], [y], groups=2).value[0, 0],
    "permutation test": lambda x, y: permutation_test("cka", x, y, permutations=1).value,
    "MinibatchCKA": by_minibatch,
    "compare": by_compare,
}
CASES = {
    f"{n} x {p} and {q}, first sample times {ratio:g}: {route}": (route, (n, p, q, ratio))
    for n, p, q in SHAPES
    for ratio in RATIOS
    for route in ROUTES
}
TIMED = {
    f"time, {n} x {p} and {q}, first sample times {ratio:g}: {route}": (route, (n, p, q, ratio))
    for n, p, q in ((2000, 512, 512), (500, 64, 64), (512, 4096, 1024))
    for ratio in (1, 1e5)
    for route in ("function", "grid", "MinibatchCKA")
}


def call(route: str, case: tuple[int, int, int, float]) -> object:
    return ROUTES[route](*features(*case))


if __name__ == "__main__":
    compare_versions(
        {name: functools.partial(call, *case) for name, case in CASES.items()},
        {name: lambda c=case: debiased_cka(*features(*c)) for name, (_, case) in CASES.items()},
        {name: functools.partial(call, *case) for name, case in TIMED.items()},
    )
