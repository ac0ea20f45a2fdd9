"""Exact optimal transport of uniform weights, by both ways, and distances made of it."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch

from repsim_fast.similarity import (
    permutation_procrustes_distance,
    soft_correlation_match,
    soft_matching_distance,
)
from repsim_fast.similarity.base.transport import transport


def least_cost(costs: torch.Tensor) -> float:
    """By a linear program over all pairs."""
    p, q = costs.shape
    sums = np.concatenate([np.kron(np.eye(p), np.ones(q)), np.kron(np.ones(p), np.eye(q))])
    wanted = np.concatenate([np.full(p, 1 / p), np.full(q, 1 / q)])
    return float(scipy.optimize.linprog(costs.numpy().ravel(), A_eq=sums, b_eq=wanted).fun)


@pytest.mark.parametrize(
    "shape", [(7, 7), (4, 12), (12, 8), (1, 5), (13, 17), (17, 13), (30, 29), (29, 41)], ids=str
)
@pytest.mark.parametrize("kind", ["random", "ties", "equal"])
def test_the_plan_is_one_and_costs_least(shape, kind):
    costs = torch.randn(shape, dtype=torch.float64)
    if kind == "ties":
        costs = costs.round()
    elif kind == "equal":
        costs = torch.ones_like(costs)
    rows, columns, weights = transport(costs)
    plan = torch.zeros(shape, dtype=torch.float64).index_put((rows, columns), weights, True)
    assert bool((plan >= 0).all())
    for dim, size in ((1, shape[0]), (0, shape[1])):
        torch.testing.assert_close(plan.sum(dim), torch.full_like(plan.sum(dim), 1 / size))
    assert float((plan * costs).sum()) == pytest.approx(least_cost(costs), abs=1e-10)


@pytest.mark.parametrize("shape", [(6, 5), (13, 17), (30, 29)], ids=str)
@pytest.mark.parametrize("spread", ["one", "all"])
def test_features_of_other_sizes_leave_the_plan_optimal(shape, spread):
    """Costs of a large feature are nearly the same for all partners, those of others small beside
    them: the program ends, and by the costs that tell partners apart no plan is better."""
    p, q = shape
    x, y = torch.randn(40, p, dtype=torch.float64), torch.randn(40, q, dtype=torch.float64)
    if spread == "one":
        x[:, 0] *= 1e4
    else:
        x *= torch.logspace(0, 6, p, dtype=torch.float64)
    costs = x.square().sum(0)[:, None] + y.square().sum(0) - 2 * x.T @ y
    rows, columns, weights = transport(costs)
    apart = costs - costs.amin(1, keepdim=True)
    apart -= apart.amin(0)
    copies = apart.repeat_interleave(q, 0).repeat_interleave(p, 1).numpy()
    first, second = scipy.optimize.linear_sum_assignment(copies)
    least = copies[first, second].mean()
    found = float((apart[rows, columns] * weights).sum())
    assert found == pytest.approx(least, abs=1e-12 * float(apart.max()))


def test_equal_widths_are_the_permutation_distance():
    x, y = torch.randn(50, 9), torch.randn(50, 9)
    expected = float(permutation_procrustes_distance(x, y)) / 3
    assert float(soft_matching_distance(x, y)) == pytest.approx(expected)


@pytest.mark.parametrize("width", [20, 23])
def test_copies_of_features_do_not_matter(width):
    """Two copies of one against one copy of the other, widths without a common divisor included."""
    x, y = torch.randn(40, 10, dtype=torch.float64), torch.randn(40, width, dtype=torch.float64)
    expected = float(soft_matching_distance(x, y))
    assert float(soft_matching_distance(x.repeat(1, 2), y)) == pytest.approx(expected)
    assert float(soft_matching_distance(x, x.repeat(1, 3))) == 0.0


def test_standardised_it_is_a_correlation():
    """Its square is 2 - 2 times the mean correlation of features matched."""
    x = torch.randn(60, 7, dtype=torch.float64)
    y = torch.cat([5 * x[:, torch.randperm(7)] + 3, torch.ones(60, 1)], dim=1)
    value = float(soft_matching_distance(x, y, standardise=True))
    assert value == pytest.approx(0.0, abs=1e-7)
    other = torch.randn(60, 11, dtype=torch.float64)
    value = float(soft_matching_distance(x, other, standardise=True))
    assert value**2 >= 2 - 2 * float(soft_correlation_match(x, other))
    assert value < 2**0.5


def test_triangle_inequality_across_widths():
    layers = [torch.randn(30, width, dtype=torch.float64) for width in (3, 5, 7, 11)]
    d = torch.tensor([[float(soft_matching_distance(a, b)) for b in layers] for a in layers])
    assert bool((d[:, None, :] <= d[:, :, None] + d[None, :, :] + 1e-9).all())
