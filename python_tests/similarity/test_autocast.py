"""Measures and operators compute in the dtype of their arguments, also where a model runs under
autocast."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from repsim_fast import ops, similarity
from repsim_fast.ops.reference import gram as reference
from repsim_fast.similarity import MinibatchCKA, grid, jackknife, measure_names, permutation_test

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(60, 6, generator=GENERATOR) + 1
Y = X @ torch.randn(6, 9, generator=GENERATOR) + torch.randn(60, 9, generator=GENERATOR)


def same_under_autocast(function: Callable[[], torch.Tensor]) -> None:
    plain = function()
    with torch.autocast("cpu", torch.bfloat16):
        inside = function()
        assert torch.is_autocast_enabled("cpu")
    assert inside.dtype == plain.dtype
    assert torch.equal(inside, plain)


@pytest.mark.parametrize("name", measure_names())
def test_measures(name):
    same_under_autocast(lambda: getattr(similarity, name)(X, Y))
    same_under_autocast(lambda: grid(name, [X, Y]))


@pytest.mark.parametrize("shape", [(60, 6), (12, 40)])
def test_forms_of_cka(shape):
    x, y = X.repeat(1, 7)[: shape[0], : shape[1]] ** 2, Y[: shape[0]]
    same_under_autocast(lambda: similarity.cka(x, y))
    same_under_autocast(lambda: similarity.cka(x, y, estimator="biased"))
    same_under_autocast(lambda: similarity.canonical_correlations(X, Y))

    def minibatch() -> torch.Tensor:
        cka = MinibatchCKA()
        for part in (slice(0, 30), slice(30, None)):
            cka.update(torch.stack([ops.centered_gram(z[part], packed=True) for z in (X, Y)]), n=30)
        return cka.compute().value

    same_under_autocast(minibatch)


def test_inference():
    same_under_autocast(lambda: jackknife("cca", [X], [Y], groups=5).standard_error)
    same_under_autocast(lambda: permutation_test("cka", X, Y, permutations=5).null)


def gradient(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_()
    function(leaf).backward()
    assert leaf.grad is not None
    return leaf.grad


OPERATORS = {
    "centered_gram": lambda x: ops.centered_gram(x).square().sum(),
    "cross_gram": lambda x: ops.cross_gram(x, Y).square().sum(),
    "batched_svdvals": lambda x: ops.batched_svdvals(x[None]).square().sum(),
    "batched_svd": lambda x: ops.batched_svd(x[None])[0].abs().sum(),
    "batched_nuclear_norm": lambda x: ops.batched_nuclear_norm(x[None]).sum(),
    "batched_eigh": lambda x: ops.batched_eigh(ops.cross_gram(x, x)[None])[1].abs().sum(),
    "reference": lambda x: reference.centered_gram(x).square().sum(),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_and_their_gradients(name):
    function = OPERATORS[name]
    same_under_autocast(lambda: function(X))
    plain = gradient(function, X)
    with torch.autocast("cpu", torch.bfloat16):
        value_inside = function(leaf := X.clone().requires_grad_())
    value_inside.backward()
    assert torch.equal(leaf.grad, plain)
    if name != "reference":  # whose backward pass is torch's
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(gradient(function, X), plain)
