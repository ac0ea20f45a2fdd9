"""One sample far larger than the others, as in hidden states of language models: every route to
CKA agrees with float64, from float32 features."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn

from python_tests.support.written_out import debiased_cka
from repsim_fast import compare
from repsim_fast.ops import centered_gram
from repsim_fast.similarity import (
    MinibatchCKA,
    cka,
    grid,
    jackknife,
    permutation_test,
)

# In both forms: products of features (n > p + q) and Grams, and one of each.
SHAPES = [(128, 4096, 256), (500, 64, 64), (500, 64, 500), (64, 8, 20_000), (20, 4, 4)]


def related(n: int, p: int, q: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A linear map with noise."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n, p, generator=generator)
    mixed = x @ torch.randn(p, q, generator=generator) / p**0.5
    return x, mixed + torch.randn(n, q, generator=generator)


@cache
def with_large_sample(
    shape: tuple[int, int, int], ratio: float
) -> tuple[torch.Tensor, torch.Tensor, float]:
    """Representations whose first sample is so much larger, and their CKA; for every route."""
    x, y = related(*shape)
    x[0] *= ratio
    y[0] *= ratio
    return x, y, debiased_cka(x, y)


def by_minibatch(x: torch.Tensor, y: torch.Tensor) -> float:
    cka = MinibatchCKA()
    cka.update(torch.stack([centered_gram(z, packed=True) for z in (x, y)]), n=len(x))
    return float(cka.compute().value[0, 1])


def by_compare(x: torch.Tensor, y: torch.Tensor) -> float:
    """As in hooks, each of two models passing one of the two through."""

    class Half(nn.Module):
        def __init__(self, columns: slice) -> None:
            super().__init__()
            self.columns, self.layer = columns, nn.Identity()

        def forward(self, both: torch.Tensor) -> torch.Tensor:
            return self.layer(both[:, self.columns])

    p = x.shape[1]
    models = [Half(slice(0, p)), Half(slice(p, None))]
    both = torch.cat([x, y], dim=1)
    result = compare(
        models, both, batch_size=len(x), names=["a", "b"], layers=lambda name, _: name == "layer"
    )
    return float(result.between("a", "b").value[0, 0])


ROUTES = {
    "function": lambda x, y: cka(x, y),
    "grid": lambda x, y: grid("cka", [x], [y])[0, 0],
    "within": lambda x, y: grid("cka", [x, y])[0, 1],
    "jackknife": lambda x, y: jackknife("cka", [x], [y], groups=2).value[0, 0],
    "permutation": lambda x, y: permutation_test("cka", x, y, permutations=1).value,
    "minibatch": by_minibatch,
    "compare": by_compare,
}


@pytest.mark.parametrize("ratio", [1, 10, 500, 1e4, 1e5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("route", ROUTES)
def test_every_route_agrees_with_float64(route, shape, ratio):
    x, y, truth = with_large_sample(shape, ratio)
    assert float(ROUTES[route](x, y)) == pytest.approx(truth, abs=1e-5)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("route", ROUTES)
def test_one_feature_of_one_sample(route, shape):
    """A "massive activation": one entry, in a sample that the shift of the Gram's kernel takes."""
    x, y = related(*shape)
    x[0, 3] = 1e5
    y[-1, 1] = -1e5
    assert float(ROUTES[route](x, y)) == pytest.approx(debiased_cka(x, y), abs=1e-5)


@pytest.mark.parametrize("route", ROUTES)
def test_several_large_samples(route):
    """Of different sizes, at the places where the Gram's kernel looks for its shift."""
    x, y = related(512, 300, 100)
    for sample, ratio in ((0, 1e5), (32, 1e3), (64, 3e4), (96, 1e2)):
        x[sample] *= ratio
        y[sample] *= ratio
    assert float(ROUTES[route](x, y)) == pytest.approx(debiased_cka(x, y), abs=1e-5)


@pytest.mark.parametrize("shape", [(60, 20), (40, 300)])
def test_gradients_of_both_forms(shape):
    """Where float64 takes over, gradients come back to float32 features."""
    x = torch.randn(*shape)
    y = torch.randn(shape[0], 10)
    x[0] *= 1e4
    grads = []
    for dtype in (torch.float32, torch.float64):
        leaf = x.to(dtype, copy=True).requires_grad_()
        grid("cka", [leaf], [y.to(dtype)])[0, 0].backward()
        grads.append(leaf.grad)
    assert grads[0].dtype == torch.float32
    error = torch.linalg.vector_norm(grads[0] - grads[1]) / torch.linalg.vector_norm(grads[1])
    assert float(error) < 1e-4
